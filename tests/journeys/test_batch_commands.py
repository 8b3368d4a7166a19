"""`dspex batch`, `dspex jobs` and `dspex queues`, as a person runs them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.conftest_simulator import RunningSimulator
from tests.journeys.test_background import ask, ended, until
from tests.plugins.commands import clean_environment, command
from tests.plugins.service import config, running_service


def write(directory: Path, simulator: RunningSimulator, count: int) -> list[dict[str, Any]]:
    (directory / "dspex.yaml").write_text(config(simulator.base_url))
    given: list[dict[str, Any]] = [{"question": f"number {number}?"} for number in range(count)]
    (directory / "inputs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in given))
    return given


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_batch_without_a_server(tmp_path: Path, simulator: RunningSimulator) -> None:
    given = write(tmp_path, simulator, 20)
    with (tmp_path / "inputs.jsonl").open("a") as file:
        file.write('\n{"query": 1}\n')
    done = command(tmp_path, "batch", "run", "qa", "inputs.jsonl", "-o", "out.jsonl", "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout) == {"items": 21, "completed": 20, "failed": 1, "output": "out.jsonl"}
    found = lines(tmp_path / "out.jsonl")
    assert [one["position"] for one in found] == [*range(1, 21), 22]
    assert [one["inputs"] for one in found[:20]] == given
    assert all(one["outputs"]["answer"] for one in found[:20])
    assert found[20]["error"]["code"] == "invalid_inputs"
    calls = simulator.calls()
    again = command(tmp_path, "batch", "run", "qa", "inputs.jsonl", "-o", "out.jsonl")
    assert "nothing was left to do: 20 completed, 1 failed" in again.stdout
    assert simulator.calls() == calls
    other = command(tmp_path, "batch", "run", "other", "inputs.jsonl", "-o", "out.jsonl")
    assert (other.returncode, "another program" in other.stderr) == (1, True)


def test_what_failed_is_run_again_when_that_is_asked_for(tmp_path: Path, simulator: RunningSimulator) -> None:
    write(tmp_path, simulator, 3)
    broken = {"rules": [{"inputs": {"question": "number 1?"}, "fault": {"kind": "empty"}}]}
    simulator.control("script", broken)
    arguments = ["batch", "run", "qa", "inputs.jsonl", "-o", "out.jsonl", "--json"]
    assert json.loads(command(tmp_path, *arguments).stdout)["failed"] == 1
    simulator.control("script", {"rules": []})
    calls = simulator.calls()
    assert json.loads(command(tmp_path, *arguments).stdout)["failed"] == 1
    assert simulator.calls() == calls
    again = command(tmp_path, *arguments, "--retry-failed")
    assert (again.returncode, json.loads(again.stdout)["completed"]) == (0, 3), again.stderr
    assert simulator.calls() == calls + 1
    assert [one["status"] for one in lines(tmp_path / "out.jsonl")] == ["completed"] * 3


def test_an_interrupted_batch_goes_on(tmp_path: Path, simulator: RunningSimulator) -> None:
    write(tmp_path, simulator, 60)
    simulator.control("faults", {"latency": "100ms"})
    arguments = ["batch", "run", "qa", "inputs.jsonl", "-o", "out.jsonl", "--concurrency", "2"]
    output = tmp_path / "out.jsonl"
    for number, status in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        before = len(lines(output)) if output.exists() else 0
        process = subprocess.Popen(
            [sys.executable, "-m", "dspex", *arguments],
            cwd=tmp_path,
            env=clean_environment(),
            stderr=subprocess.PIPE,
        )
        until(lambda before=before: output.exists() and output.read_bytes().count(b"\n") > before + 10)
        process.send_signal(number)
        _, told = process.communicate(timeout=30)
        assert process.returncode == status, told
        assert b"Traceback" not in told
    with output.open("a") as file:
        file.write('{"position": 60, "inp')
    simulator.control("faults", {"latency": "0ms"})
    done = command(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert [one["position"] for one in lines(output)] == list(range(1, 61))
    # Of what was under way each time, two at once.
    assert simulator.calls() <= 64


def test_results_of_other_inputs_are_not_mixed(tmp_path: Path, simulator: RunningSimulator) -> None:
    write(tmp_path, simulator, 2)
    (tmp_path / "out.jsonl").write_text(
        '{"position": 1, "inputs": {"question": "else"}, "status": "completed"}\n'
    )
    refused = command(tmp_path, "batch", "run", "qa", "inputs.jsonl", "-o", "out.jsonl")
    assert refused.returncode == 1
    assert "other results" in refused.stderr
    (tmp_path / "inputs.jsonl").write_text('{"question": "a"}\nnonsense\n[]\n')
    refused = command(tmp_path, "batch", "run", "qa", "inputs.jsonl", "-o", "new.jsonl")
    assert "line 2 is not JSON" in refused.stderr
    assert "line 3" in refused.stderr
    absent = command(tmp_path, "batch", "run", "absent", "inputs.jsonl", "-o", "new.jsonl")
    assert absent.returncode == 1
    assert simulator.calls() == 0


def test_a_batch_on_a_node_goes_on_without_us(tmp_path: Path, simulator: RunningSimulator) -> None:
    write(tmp_path, simulator, 60)
    simulator.control("faults", {"latency": "100ms"})
    arguments = ["batch", "run", "qa", "inputs.jsonl", "-o", "out.jsonl", "--concurrency", "2"]
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        node = {"DSPEX_URL": service.url}
        process = subprocess.Popen(
            [sys.executable, "-m", "dspex", *arguments],
            cwd=tmp_path,
            env=clean_environment() | node,
            stderr=subprocess.PIPE,
        )
        until((tmp_path / "out.jsonl.batch").exists)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
        assert (process.returncode, b"goes on with it" in told) == (130, True), told
        done = command(tmp_path, *arguments, "--json", **node)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["completed"] == 60
        assert [one["position"] for one in lines(tmp_path / "out.jsonl")] == list(range(1, 61))
        assert not (tmp_path / "out.jsonl.batch").exists()
        again = command(tmp_path, *arguments, "--json", **node)
        assert (again.returncode, json.loads(again.stdout)["completed"]) == (0, 60), again.stderr
        assert simulator.calls() == 60
        (listed,) = client.get("/v1/batches").json()["data"]
        shown = json.loads(command(tmp_path, "batch", "list", "--json").stdout)
        assert [one["id"] for one in shown] == [listed["id"]]
        assert command(tmp_path, "batch", "get", listed["id"]).stdout.count("60") >= 2
        late = command(tmp_path, "batch", "cancel", listed["id"])
        assert (late.returncode, "completed" in late.stderr) == (1, True)


def test_jobs_and_queues_at_the_command_line(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        assert "No jobs." in command(tmp_path, "jobs", "list").stdout
        paused = json.loads(command(tmp_path, "queues", "pause", "llm_calls", "--json").stdout)
        assert [one["name"] for one in paused if one["paused_at"]] == ["llm_calls"]
        job_id = ask(client, "Which?").json()["id"]
        assert job_id in command(tmp_path, "jobs", "list", "--status", "queued").stdout
        assert "cancelled" in command(tmp_path, "jobs", "cancel", job_id).stdout
        assert client.get(f"/v1/executions/{job_id}").json()["status"] == "cancelled"
        for change, state in (("retry", "queued"), ("pause", "paused"), ("resume", "queued")):
            assert state in command(tmp_path, "jobs", change, job_id).stdout
        command(tmp_path, "queues", "resume", "llm_calls")
        assert ended(client, job_id)["status"] == "completed"
        shown = json.loads(command(tmp_path, "jobs", "get", job_id, "--json").stdout)
        assert (shown["kind"], shown["status"], shown["attempts"]) == ("execution", "completed", 1)
        assert "no queue" in command(tmp_path, "queues", "pause", "nonsense").stderr
        actions = {one["action"] for one in client.get("/v1/audit").json()["data"]}
        assert {
            "queue.pause",
            "job.cancel",
            "job.retry",
            "job.pause",
            "job.resume",
            "queue.resume",
        } <= actions
