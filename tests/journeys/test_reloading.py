"""A node takes a new configuration while it serves, or refuses it whole."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.commands import command
from tests.plugins.service import Service, config, running_service
from tests.plugins.workers import running_worker

BEFORE = """
programs:
  - {name: qa, signature: "question -> answer", executor: mock, mock: {outputs: {answer: before}, latency_ms: 0}}
  - {name: slow, signature: "question -> answer", executor: mock, mock: {outputs: {answer: old}, latency_ms: 1500}}
"""
AFTER = """
programs:
  - {name: qa, signature: "question -> answer", executor: mock, mock: {outputs: {answer: after}}}
  - {name: new, signature: "question -> answer", executor: mock, mock: {outputs: {answer: fresh}}}
retention: {days: 3}
"""
BAD = """
programs:
  - {name: qa, signature: "question -> answer", executor: mock, mock: {outputs: {answer: never}}}
  - {name: broken, signature: "question ->", executor: mock}
"""
RESERVED = """
programs:
  - {name: qa, signature: "question -> why", timeout_s: 7, executor: mock, mock: {outputs: {why: never}}}
  - {name: adhoc, signature: "question -> answer", executor: mock}
datasets:
  - {name: rows, path: rows.jsonl}
"""


def answer(service: Service, program: str = "qa") -> Any:
    said = service.predict(program, {"question": "?"})
    return said.json()["outputs"]["answer"] if said.status_code == 200 else said.status_code


def eventually(condition: Callable[[], object], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def write(directory: Path, text: str) -> None:
    (directory / "dspex.yaml").write_text(text, encoding="utf-8")


def reload(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command(directory, "reload", *arguments)


def test_a_hangup_brings_the_new_file_into_force(tmp_path: Path) -> None:
    with running_service(tmp_path, BEFORE) as service:
        assert (answer(service), answer(service, "new")) == ("before", 404)
        late: list[httpx.Response] = []
        slow = threading.Thread(target=lambda: late.append(service.predict("slow", {"question": "?"})))
        slow.start()
        time.sleep(0.3)
        write(tmp_path, AFTER)
        os.kill(service.process.pid, signal.SIGHUP)
        eventually(lambda: answer(service) == "after")
        assert answer(service, "new") == "fresh"
        assert answer(service, "slow") == 409
        slow.join()
        assert late[0].json()["outputs"] == {"answer": "old"}
        eventually(lambda: '"event": "reloaded"' in service.log)
        assert '"needs_restart": ["retention"]' in service.log
        assert service.stop() == 0


def test_whoever_waits_for_a_model_gets_the_room_that_a_new_file_makes(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    narrow = config(simulator.base_url).replace("max_tokens: 1000", "lanes: {interactive: 1, wait_s: 60}")
    with running_service(tmp_path, narrow) as service, ThreadPoolExecutor(2) as callers:

        def lane() -> dict[str, int]:
            with service.client() as client:
                (shown,) = client.get("/v1/breakers").json()["data"]
            return dict(shown["lanes"]["interactive"])

        simulator.control("faults", {"latency": "30s"})
        for number in range(2):
            callers.submit(service.predict, "qa", {"question": str(number)})
        eventually(lambda: lane() == {"in_flight": 1, "waiting": 1})
        write(tmp_path, narrow.replace("interactive: 1", "interactive: 2"))
        os.kill(service.process.pid, signal.SIGHUP)
        eventually(lambda: lane() == {"in_flight": 2, "waiting": 0})
        # Nobody needs the answers.
        service.kill()


def test_a_bad_file_is_refused_whole(tmp_path: Path) -> None:
    with running_service(tmp_path, BEFORE) as service:
        for text, reason in ((BAD, "broken"), ("programs: [", "can't be read"), ("serve: 1", "/serve")):
            write(tmp_path, text)
            os.kill(service.process.pid, signal.SIGHUP)
            eventually(lambda reason=reason: reason in service.log)  # type: ignore[misc]
            assert answer(service) == "before"
        assert service.log.count("reload_refused") == 3


def test_several_processes_outlive_a_file_that_no_parser_reads(tmp_path: Path) -> None:
    with running_service(tmp_path, BEFORE, "--workers", "2") as service:
        write(tmp_path, "note: 2026-02-30")
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: service.log.count("reload_refused") == 2)
        write(tmp_path, AFTER)
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: answer(service) == "after")
        assert service.stop() == 0


def test_a_file_that_is_refused_for_a_name_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"inputs": {"question": "?"}, "outputs": {}}')
    with running_service(tmp_path, BEFORE) as service, service.client() as client:
        before = client.get("/v1/programs/qa").json()
        write(tmp_path, RESERVED)
        os.kill(service.process.pid, signal.SIGHUP)
        eventually(lambda: '"code": "reserved_name"' in service.log)
        assert answer(service) == "before"
        assert client.get("/v1/programs/qa").json() == before
        assert len(client.get("/v1/programs/qa/versions").json()["data"]) == 1
        assert client.get("/v1/datasets").json()["data"] == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_says_what_the_nodes_made_of_it(tmp_path: Path, workers: str) -> None:
    with running_service(tmp_path, BEFORE, "--workers", workers) as service:
        eventually(lambda: answer(service) == "before")
        write(tmp_path, AFTER)
        done = reload(tmp_path, "--json")
        nodes = json.loads(done.stdout)["nodes"]
        assert (done.returncode, len(nodes)) == (0, int(workers)), done.stderr
        assert {one["outcome"] for one in nodes} == {"reloaded"}
        assert {one["detail"] for one in nodes} == {"retention"}
        eventually(lambda: answer(service) == "after")
        assert [answer(service) for _ in range(20)] == ["after"] * 20
        write(tmp_path, "programs: 7")
        refused = reload(tmp_path)
        assert refused.returncode == 1
        assert "/programs" in refused.stderr
        assert answer(service) == "after"
        # Whoever asks from elsewhere, with a file that is right, hears what the nodes think of theirs.
        elsewhere = tmp_path / "elsewhere.yaml"
        elsewhere.write_text(AFTER, encoding="utf-8")
        done = reload(tmp_path, "--config", str(elsewhere), "--json")
        told = json.loads(done.stdout)
        assert {one["outcome"] for one in told["nodes"]} == {"refused"}
        assert "/programs" in told["nodes"][0]["detail"]
        assert (done.returncode, told["programs"]) == (1, [])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_version_that_gates_keep_back_is_no_success(tmp_path: Path, workers: str) -> None:
    gated = AFTER.replace("{answer: after}}}", "{answer: after}}, gates: {min_score: 0.8}}")
    with running_service(tmp_path, BEFORE, "--workers", workers) as service:
        write(tmp_path, gated)
        done = reload(tmp_path, "--json")
        assert done.returncode == 1
        told = json.loads(done.stdout)
        assert {one["outcome"] for one in told["nodes"]} == {"reloaded"}
        with service.client() as client:
            assert client.get("/v1/declarations").json()["data"] == told["programs"]
        new, qa = told["programs"]
        assert (new["program"], new["deployed"], new["outcome"]) == ("new", 1, "deployed")
        reason = qa.pop("reason")
        assert "it has no score on held-out examples and needs 0.8" in reason
        assert qa == {
            "program": "qa",
            "version": 2,
            "deployed": 1,
            "outcome": "kept_back",
            "code": "gate_not_met",
            "displaced": None,
        }
        said = reload(tmp_path)
        assert said.returncode == 1
        assert f"qa: {reason}" in said.stdout
        assert "kept back" in said.stdout
        assert command(tmp_path, "deploy", "qa", "2", "--force").returncode == 0
        assert reload(tmp_path).returncode == 0


def test_without_a_node_there_is_nobody_to_tell(tmp_path: Path) -> None:
    write(tmp_path, BEFORE)
    done = reload(tmp_path)
    assert (done.returncode, done.stdout.strip()) == (
        0,
        "No node runs on this database; the file is read when one starts.",
    )


def test_a_process_that_is_started_later_has_the_new_settings(tmp_path: Path) -> None:
    limited = AFTER + "limits: {body_bytes: 1024}\n"
    with running_service(tmp_path, BEFORE, "--workers", "2") as service:
        eventually(lambda: answer(service) == "before")
        write(tmp_path, limited)
        assert reload(tmp_path).returncode == 0
        children = subprocess.run(
            ["pgrep", "-P", str(service.process.pid)], capture_output=True, text=True, check=True
        )
        for child in children.stdout.split():
            command = Path(f"/proc/{child}/cmdline")
            if command.exists() and b"spawn_main" in command.read_bytes():
                os.kill(int(child), signal.SIGKILL)
        large = {"question": "x" * 2000}

        def refused() -> bool:
            try:
                return service.predict("qa", large).status_code == 413
            except httpx.TransportError:
                return False

        eventually(refused)
        assert all(refused() for _ in range(10))


KEYLESS = """
models:
  registry:
    keyless: {model: openai/gpt-4o-mini, env: NOBODY_SETS_THIS}
    simulated: {model: simulator/default}
  default: simulated
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_model_without_its_key_is_told_of_once_by_each_who_takes_it(tmp_path: Path, workers: str) -> None:
    with (
        running_service(tmp_path, BEFORE + "jobs: {workers: 0}\n", "--workers", workers) as service,
        running_worker(tmp_path) as worker,
    ):
        assert "model_key_missing" not in service.log + worker.log
        write(tmp_path, AFTER + KEYLESS + "jobs: {workers: 0}\n")
        assert reload(tmp_path).returncode == 0
        for log in (service.log, worker.log):
            (line,) = [json.loads(one) for one in log.splitlines() if "model_key_missing" in one]
            assert (line["model"], line["variable"]) == ("keyless", "NOBODY_SETS_THIS")
    with running_worker(tmp_path, name="again") as worker:
        assert worker.log.count("model_key_missing") == 1
