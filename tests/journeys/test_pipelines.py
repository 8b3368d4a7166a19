"""The example of a pipeline as a user starts it, and one over a model's server that is slow or fails."""

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.service import Service, config, running_service

EXAMPLE = Path(__file__).parents[2] / "examples" / "pipeline"
PROGRAMS = """\
- name: support
  pipeline:
    inputs: "ticket"
    steps:
      - {name: one, signature: "ticket -> first"}
      - {name: two, signature: "ticket -> second"}
      - {name: three, signature: "ticket -> third"}
      - {name: all, signature: "first, second, third -> answer"}
    outputs: {answer: all.answer, first: one.first}"""


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, simulator_process: RunningSimulator
) -> Iterator[Service]:
    declared = config(simulator_process.base_url, PROGRAMS, 'cache: {policy: {mode: "off"}}')
    alone = "max_tokens: 1000, retries: {attempts: 1}, breaker: {failures: 1000}}"
    declared = declared.replace("max_tokens: 1000}", alone)
    with running_service(tmp_path_factory.mktemp("service"), declared) as running:
        yield running


def test_the_example_is_served(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "dspex.yaml").read_text()
    with running_service(tmp_path, text) as running, running.client() as client:
        answer = running.predict("support", {"ticket": "The app crashes.", "customer": "Ann"})
        body = answer.json()
        assert answer.status_code == 200, body
        assert set(body["outputs"]) == {"answer", "category", "note", "tags"}
        statuses = {step["name"]: step["status"] for step in body["steps"]}
        assert set(statuses) == {"classify", "sentiment", "reply", "escalate", "tag"}
        assert statuses["reply"] == "completed"
        assert (statuses["escalate"] == "skipped") == (body["outputs"]["note"] is None)
        record = client.get(f"/v1/executions/{body['id']}").json()
        assert {call["step"] for call in record["trace"]} == {
            name for name, status in statuses.items() if status == "completed"
        }
        assert json.dumps(record["steps"])


def test_steps_that_need_nothing_of_each_other_run_at_the_same_time(
    service: Service, simulator: RunningSimulator
) -> None:
    service.predict("support", {"ticket": "warm"})
    simulator.control("faults", {"faults": [], "latency": "400ms"})
    started = time.monotonic()
    body = service.predict("support", {"ticket": "It broke."}).json()
    taken = time.monotonic() - started
    assert body["status"] == "completed"
    # Two rounds of the four calls, not four; what is waited for is counted once.
    assert 0.8 <= taken < 1.5, taken
    assert body["overhead_ms"] < 400
    assert body["duration_ms"] >= 800


def test_a_step_that_fails_ends_those_that_run(service: Service, simulator: RunningSimulator) -> None:
    simulator.control(
        "script",
        {
            "rules": [
                {"output": "first", "fields": {"first": "done"}},
                {"output": "second", "fault": {"kind": "hang", "seconds": 20}},
                {"output": "third", "fault": {"kind": "server_error"}},
            ]
        },
    )
    started = time.monotonic()
    answer = service.predict("support", {"ticket": "It broke."})
    assert time.monotonic() - started < 10
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (503, "lm_server_error"), problem
    assert problem["detail"].startswith("Step 'three': ")
    statuses = {step["name"]: step["status"] for step in problem["steps"]}
    assert (statuses["two"], statuses["three"], statuses["all"]) == ("cancelled", "failed", "pending")
    assert statuses["one"] in ("completed", "cancelled")
    with service.client() as client:
        record = client.get(f"/v1/executions/{problem['execution_id']}").json()
    ended = {call["step"]: call["error"]["kind"] for call in record["trace"] if call["error"]}
    assert ended["two"] == "cancelled"


def test_the_time_limit_is_that_of_the_whole(service: Service, simulator: RunningSimulator) -> None:
    rules = [
        {"output": "second", "fault": {"kind": "hang", "seconds": 20}},
        {"output": "first", "fields": {"first": "done"}},
    ]
    simulator.control("script", {"rules": rules})
    answer = service.predict("support", {"ticket": "It broke."}, timeout_s=1)
    problem = answer.json()
    assert (answer.status_code, problem["kind"]) == (504, "timeout"), problem
    assert problem["partial"]["one"] == {"first": "done"}
    assert "three" in problem["partial"]


def test_a_caller_who_leaves_ends_all_steps(service: Service, simulator: RunningSimulator) -> None:
    simulator.control("script", {"rules": [{"output": "second", "fault": {"kind": "hang", "seconds": 30}}]})
    with ThreadPoolExecutor() as pool:

        def leave() -> None:
            with service.client() as client, pytest.raises(Exception, match="timed out"):
                client.post(
                    "/v1/programs/support/predict",
                    json={"inputs": {"ticket": "gone"}, "request_id": "left"},
                    timeout=1,
                )

        pool.submit(leave).result()
    deadline = time.monotonic() + 10
    with service.client() as client:
        while not (found := client.get("/v1/executions?request_id=left").json()["data"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        record = client.get(f"/v1/executions/{found[0]['id']}").json()
    assert record["status"] == "cancelled"
    assert {"one", "three"} <= set(record["partial"])
    assert {step["name"]: step["status"] for step in record["steps"]}["two"] == "cancelled"


def test_a_file_with_a_bad_pipeline_does_not_start(tmp_path: Path) -> None:
    bad = PROGRAMS.replace("first, second, third -> answer", "first, fourth -> answer")
    with running_service(tmp_path, "programs:\n  " + "\n  ".join(bad.splitlines()), ready=False) as running:
        assert running.process.wait(timeout=60) != 0
    assert "'support'" in running.log
    assert "'fourth' comes from nowhere" in running.log
    assert "/pipeline/steps/3/inputs/fourth" in running.log
