"""Evaluations, by real workers and at the command line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest_simulator import RunningSimulator
from tests.journeys.test_background import until
from tests.plugins.commands import clean_environment, command
from tests.plugins.service import config, running_service

PROGRAMS = """\
- {name: qa, signature: 'question -> answer'}
- {name: thinker, signature: 'question -> answer', module: chain_of_thought}
"""
PRICED = "\n".join(
    (
        "models:",
        "  default: main",
        "  registry:",
        '    main: {model: openai/priced, api_base: "%s", pricing: {input_per_million: 1.0, output_per_million: 1.0}}',
        "programs:",
        "  - {name: qa, signature: 'question -> answer'}",
    )
)


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"inputs": {"question": f"number {number}?"}, "outputs": {"answer": "harbor"}}
        for number in range(count)
    ]


def over(client: httpx.Client, evaluation_id: str, seconds: float = 120) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/v1/evaluations/{evaluation_id}").json()
        return found if found["completed_at"] is not None else None

    return until(look, seconds)


def asked(client: httpx.Client, **more: Any) -> str:
    answer = client.post("/v1/evaluations", json={"program": "qa", "dataset": "rows", **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def results(client: httpx.Client, evaluation_id: str) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    query: dict[str, Any] = {"limit": 200}
    while True:
        page = client.get(f"/v1/evaluations/{evaluation_id}/results", params=query).json()
        found |= {one["position"]: one for one in page["data"]}
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_an_evaluation_goes_on_after_kill_9_and_runs_nothing_twice_that_was_scored(
    tmp_path: Path, simulator: RunningSimulator, backend: str, request: pytest.FixtureRequest
) -> None:
    environment = {}
    if backend == "postgresql":
        environment["DATABASE_URL"] = request.getfixturevalue("postgresql_url")
    count = 600
    simulator.control("faults", {"latency": "20ms"})
    with (
        running_service(tmp_path, config(simulator.base_url), environment=environment) as service,
        service.client() as client,
    ):
        assert client.post("/v1/datasets", json={"name": "rows", "rows": rows(count)}).status_code == 201
        evaluation_id = asked(client, metric="contains", concurrency=8, use_cache=False)
        place = f"/v1/evaluations/{evaluation_id}"
        before: dict[int, dict[str, Any]] = {}
        for share in (0.2, 0.5):
            until(lambda share=share: client.get(place).json()["progress"]["scored"] > share * count, 120)
            node = client.get(f"/v1/jobs/{evaluation_id}").json()["node"]
            os.kill(int(node.rsplit("-", 2)[1]), signal.SIGKILL)
            before = results(client, evaluation_id)
        done = over(client, evaluation_id, 180)
        report = done["result"]
        assert (done["status"], report["scored"], report["failed"]) == ("completed", count, 0)
        after = results(client, evaluation_id)
        assert len({one["execution_id"] for one in after.values()}) == count
        # What was scored stayed as it was, to the microsecond that it took.
        assert len(before) > 0.2 * count
        assert all(after[position] == one for position, one in before.items())
        assert report["mean"] == pytest.approx(sum(one["score"] for one in after.values()) / count)
        assert client.get(f"/v1/jobs/{evaluation_id}").json()["attempts"] == 3
        # Running everything again would have been 1.7 times as many.
        assert simulator.calls() <= 1.3 * count


def test_judges_budgets_and_cancelling_on_a_node(tmp_path: Path, simulator: RunningSimulator) -> None:
    with (
        running_service(tmp_path, PRICED % simulator.base_url) as service,
        service.client() as client,
    ):
        client.post("/v1/datasets", json={"name": "rows", "rows": rows(40)})
        whole = over(client, asked(client, metric={"name": "lm_judge", "criteria": "Is it a place?"}))
        report = whole["result"]
        assert (whole["status"], report["scored"], report["lm_calls"]) == ("completed", 40, 80)
        assert 0.0 <= report["mean"] <= 1.0
        assert 0 < report["metric_cost_usd"] < report["cost_usd"]
        spent = sum(one["cost_usd"] for one in client.get("/costs").json()["data"])
        assert spent == pytest.approx(report["cost_usd"])
        capped = over(
            client,
            asked(
                client, metric="lm_judge", use_cache=False, budget_usd=report["cost_usd"] / 4, concurrency=4
            ),
        )
        assert (capped["status"], capped["result"]["stopped"]) == ("completed", "budget")
        assert 0 < capped["result"]["scored"] < 40
        # An example may cost some tokens more than the dearest one before it.
        assert capped["result"]["cost_usd"] <= 1.2 * report["cost_usd"] / 4
        rule = {"inputs": {"question": "number 30?"}, "fault": {"kind": "hang"}}
        simulator.control("script", {"rules": [rule]})
        stuck = asked(client, concurrency=1, use_cache=False)
        until(lambda: client.get(f"/v1/evaluations/{stuck}").json()["progress"]["scored"] == 30, 60)
        assert client.post(f"/v1/evaluations/{stuck}/cancel", json={}).status_code == 202
        ended = over(client, stuck, 60)
        assert (ended["status"], ended["result"]["stopped"]) == ("cancelled", "cancelled")
        assert (ended["result"]["scored"], ended["result"]["not_run"]) == (30, 10)


def write(directory: Path, simulator: RunningSimulator, count: int, programs: str = PROGRAMS) -> None:
    (directory / "dspex.yaml").write_text(config(simulator.base_url, programs))
    lines = "".join(json.dumps(one) + "\n" for one in rows(count))
    (directory / "rows.jsonl").write_text(lines)
    shop = directory / "shop"
    shop.mkdir()
    (shop / "__init__.py").write_text("")
    (shop / "metrics.py").write_text(
        "def length(example, pred, trace=None):\n    return min(len(pred.answer), 100) / 100\n"
    )


def test_evaluations_without_a_server(tmp_path: Path, simulator: RunningSimulator) -> None:
    write(tmp_path, simulator, 12)
    assert "12 rows" in command(tmp_path, "datasets", "load", "rows.jsonl").stdout
    first = command(tmp_path, "eval", "run", "qa", "rows", "--metric", "contains", "--json")
    assert first.returncode == 0, first.stderr
    one = json.loads(first.stdout)
    assert (one["status"], one["result"]["scored"], one["dataset_version"]) == ("completed", 12, 1)
    second = command(tmp_path, "eval", "run", "thinker", "rows@1", "--metric", "contains", "--json")
    other = json.loads(second.stdout)
    shown = command(tmp_path, "eval", "show", one["id"]).stdout
    assert "12 scored, 0 failed of 12" in shown and "95%" in shown
    listed = json.loads(command(tmp_path, "eval", "list", "--program", "qa", "--json").stdout)
    assert [found["id"] for found in listed] == [one["id"]]
    lowest = json.loads(command(tmp_path, "eval", "results", one["id"], "--lowest", "3", "--json").stdout)
    assert len(lowest) == 3 and lowest[0]["score"] <= lowest[2]["score"]
    assert "No such examples." in command(tmp_path, "eval", "results", one["id"], "--failed").stdout
    compared = command(tmp_path, "eval", "compare", one["id"], other["id"]).stdout
    assert "p-value" in compared and "over 12 examples" in compared
    mine = command(tmp_path, "eval", "run", "qa", "rows", "--metric", "shop.metrics:length", "--limit", "5")
    assert "5 scored, 0 failed of 5" in mine.stdout, mine.stderr
    for arguments, told in (
        (("qa", "absent"), "no dataset"),
        (("qa", "rows", "--budget", "1"), "price"),
    ):
        refused = command(tmp_path, "eval", "run", *arguments)
        assert refused.returncode == 1 and told in refused.stderr, refused.stderr


def test_an_interrupted_one_goes_on_here_and_a_node_does_it_alone(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    write(tmp_path, simulator, 60, "- {name: qa, signature: 'question -> answer'}")
    command(tmp_path, "datasets", "load", "rows.jsonl")
    simulator.control("faults", {"latency": "400ms"})
    process = subprocess.Popen(
        [sys.executable, "-m", "dspex", "eval", "run", "qa", "rows", "--concurrency", "2"],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )

    def running(scored: int = 6) -> dict[str, Any] | None:
        found = json.loads(command(tmp_path, "eval", "list", "--json").stdout or "[]")
        done = found[0]["progress"] if found and found[0]["status"] == "running" else None
        return found[0] if done and done["scored"] >= scored else None

    evaluation = until(running, 90)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, b"eval resume" in told) == (130, True), told
    assert b"Traceback" not in told
    simulator.control("faults", {"latency": "0ms"})
    assert command(tmp_path, "jobs", "pause", evaluation["id"]).returncode == 0
    assert json.loads(command(tmp_path, "eval", "list", "--json").stdout)[0]["status"] == "paused"
    done = json.loads(command(tmp_path, "eval", "resume", evaluation["id"], "--json").stdout)
    assert (done["status"], done["result"]["scored"]) == ("completed", 60)
    assert simulator.calls() <= 64
    text = (tmp_path / "dspex.yaml").read_text()
    with running_service(tmp_path, text) as service:
        node = {"DSPEX_URL": service.url}
        there = command(tmp_path, "eval", "run", "qa", "rows", "--metric", "f1", "--json", **node)
        assert there.returncode == 0, there.stderr
        made = json.loads(there.stdout)
        assert (made["status"], made["metric"]) == ("completed", {"name": "f1"})
        # Beside a node that has workers, the command leaves it to them.
        beside = json.loads(command(tmp_path, "eval", "run", "qa", "rows", "--metric", "f1", "--json").stdout)
        assert beside["status"] == "completed"
        with service.client() as client:
            assert client.get(f"/v1/jobs/{beside['id']}").json()["node"].startswith("work-")
        listed = command(tmp_path, "eval", "list", "--json", **node).stdout
        assert len(json.loads(listed)) == 3
        simulator.control("faults", {"latency": "400ms"})
        watching = subprocess.Popen(
            [sys.executable, "-m", "dspex", "eval", "run", "qa", "rows", "--no-cache", "--concurrency", "2"],
            cwd=tmp_path,
            env=clean_environment(),
            stderr=subprocess.PIPE,
        )
        watched = until(lambda: running(scored=2), 90)
        watching.send_signal(signal.SIGINT)
        _, told = watching.communicate(timeout=60)
        assert watching.returncode == 130
        assert b"goes on on work-" in told and f"eval cancel {watched['id']}".encode() in told, told
        assert command(tmp_path, "eval", "cancel", watched["id"]).returncode == 0
        simulator.control("faults", {"latency": "0ms"})
        compared = command(tmp_path, "eval", "compare", made["id"], beside["id"], **node).stdout
        assert "60 the same" in compared
        queued = command(tmp_path, "eval", "run", "qa", "rows", "--no-watch", "--json", **node)
        assert json.loads(queued.stdout)["status"] == "queued"
