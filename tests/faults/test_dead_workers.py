"""Workers that die, freeze and come back, beside others: each wait is real, and on one of the two databases.

Leases are taken and lost in the same way on both; tests/contracts/test_job_store.py says so.
"""

import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest_simulator import RunningSimulator
from tests.journeys.test_background import ask, ended, status, until
from tests.journeys.test_batches import over, questions, upload
from tests.plugins.proxy import proxy_to
from tests.plugins.service import config, running_service
from tests.plugins.workers import WorkerProcess, running_worker

# They run elsewhere, and each has a data directory of its own: nobody sees the other's locks.
ELSEWHERE = "jobs: {workers: 0}"


def node_of(client: httpx.Client, job_id: str) -> str:
    return str(until(lambda: client.get(f"/v1/jobs/{job_id}").json()["node"]))


def of(node: str, *workers: WorkerProcess) -> tuple[WorkerProcess, WorkerProcess]:
    """The worker that this node is, and the other one."""
    first, second = workers
    return (first, second) if f"-{first.process.pid}-" in node else (second, first)


def test_a_frozen_worker_loses_its_jobs_and_writes_nothing_when_it_wakes(
    tmp_path: Path, simulator: RunningSimulator, postgresql_url: str
) -> None:
    environment = {"DATABASE_URL": postgresql_url}
    # To a frozen process all its calls seem to time out, which says nothing about the model.
    declared = config(simulator.base_url, extra=ELSEWHERE)
    declared = declared.replace("max_tokens: 1000", "max_tokens: 1000, breaker: {failures: 100}")
    with (
        running_service(tmp_path, declared, environment=environment) as service,
        running_worker(tmp_path, "--data-dir", "one", environment=environment, name="one") as one,
        running_worker(tmp_path, "--data-dir", "two", environment=environment, name="two") as two,
        service.client() as client,
    ):
        simulator.control("faults", {"latency": "1s"})
        execution_id = ask(client, "Which?").json()["id"]
        batch_id = upload(client, questions(20), concurrency=1).json()["id"]
        until(lambda: client.get(f"/v1/batches/{batch_id}").json()["completed"] >= 2)
        until(lambda: status(client, execution_id) == "completed")
        frozen, other = of(node_of(client, batch_id), one, two)
        # One more for each of them, so that the frozen one has an execution as well as the batch.
        pending: list[str] = []

        def asked_until_it_has_one() -> bool:
            if not _has_one(client, pending[-4:], frozen):
                pending.append(ask(client, f"{len(pending)}?").json()["id"])
                return False
            return True

        until(asked_until_it_has_one)
        # In the middle of a write it would hold its locks for as long as it is frozen.
        time.sleep(0.3)
        frozen.send(signal.SIGSTOP)
        stopped = time.monotonic()
        done = over(client, batch_id, 120)
        assert time.monotonic() - stopped < 75
        assert (done["status"], done["completed"], done["failed"]) == ("completed", 20, 0)
        assert f"-{other.process.pid}-" in node_of(client, batch_id)
        records = {one: ended(client, one) for one in pending}
        assert {record["status"] for record in records.values()} == {"completed"}
        simulator.control("faults", {"latency": "0ms"})
        before = simulator.calls()
        frozen.send(signal.SIGCONT)
        # It lets go of what it had, and takes new jobs.
        time.sleep(3)
        assert simulator.calls() == before
        for execution_id, record in records.items():
            assert client.get(f"/v1/executions/{execution_id}").json() == record
        other.stop()
        assert ended(client, ask(client, "After?").json()["id"])["status"] == "completed"
        assert "Traceback" not in frozen.log


def _has_one(client: httpx.Client, ids: list[str], worker: WorkerProcess) -> bool:
    return any(
        f"-{worker.process.pid}-" in (client.get(f"/v1/jobs/{one}").json()["node"] or "") for one in ids
    )


def test_another_node_takes_over_from_a_dead_one(
    tmp_path: Path, simulator: RunningSimulator, sqlite_url: str
) -> None:
    environment = {"DATABASE_URL": sqlite_url}
    with (
        running_service(
            tmp_path, config(simulator.base_url, extra=ELSEWHERE), environment=environment
        ) as service,
        running_worker(tmp_path, "--data-dir", "one", environment=environment, name="one") as one,
        running_worker(tmp_path, "--data-dir", "two", environment=environment, name="two") as two,
        service.client() as client,
    ):
        simulator.control("faults", {"latency": "2s"})
        execution_id = ask(client, "Which?").json()["id"]
        until(lambda: simulator.calls() == 1)
        dead, _ = of(node_of(client, execution_id), one, two)
        dead.kill()
        killed = time.monotonic()
        assert until(lambda: status(client, execution_id) == "completed", 75)
        assert time.monotonic() - killed < 75
        assert simulator.calls() == 2


def test_a_worker_that_is_told_to_end_while_the_database_is_away_leaves(
    tmp_path: Path, simulator: RunningSimulator, postgresql_url: str
) -> None:
    direct, parts = {"DATABASE_URL": postgresql_url}, urlsplit(postgresql_url)
    declared = config(simulator.base_url, extra=f"{ELSEWHERE}\nserver: {{drain_s: 1}}")
    with (
        proxy_to(parts.hostname or "", parts.port or 5432) as proxy,
        running_service(tmp_path, declared, environment=direct) as service,
        service.client() as client,
    ):
        through = {"DATABASE_URL": parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}").geturl()}
        simulator.control("faults", {"latency": "500ms"})
        with running_worker(tmp_path, "--data-dir", "one", environment=through, name="one") as one:
            batch_id = upload(client, questions(20), concurrency=2).json()["id"]
            until(lambda: client.get(f"/v1/batches/{batch_id}").json()["completed"] >= 4)
            proxy.cut()
            before = on_record(client)
            told = time.monotonic()
            assert one.stop() == 0
            assert time.monotonic() - told < 1 + 15 + 5
            assert "worker_left" in one.log and batch_id in one.log
        simulator.control("faults", {"latency": "0ms"})
        with running_worker(tmp_path, "--data-dir", "two", environment=direct, name="two"):
            done = over(client, batch_id, 120)
        assert (done["status"], done["completed"], done["failed"]) == ("completed", 20, 0)
        after = on_record(client)
        # What was on record is not run again.
        assert len(after) == 20
        assert before.items() <= after.items()


def on_record(client: httpx.Client) -> dict[str, str]:
    """When each execution that completed did so, by id."""
    listed = client.get("/v1/executions", params={"limit": 100}).json()["data"]
    return {one["id"]: one["completed_at"] for one in listed if one["status"] == "completed"}


def test_without_any_worker_the_node_says_that_jobs_wait(tmp_path: Path, simulator: RunningSimulator) -> None:
    declared = config(simulator.base_url, extra=ELSEWHERE)
    with running_service(tmp_path, declared) as service, service.client() as client:
        execution_id = ask(client, "Which?").json()["id"]
        ready = until(lambda: _failing(client), 60)
        assert [one["name"] for one in ready["checks"] if not one["ok"]] == ["jobs"]
        assert "dspex work" in next(one["detail"] for one in ready["checks"] if not one["ok"])
        with running_worker(tmp_path, "--queues", "llm_calls,default"):
            assert ended(client, execution_id)["status"] == "completed"
            assert client.get("/ready").status_code == 200


def _failing(client: httpx.Client) -> dict[str, object] | None:
    answer = client.get("/ready")
    return answer.json() if answer.status_code == 503 else None


@pytest.mark.parametrize("queues", ["nonsense", "default,nonsense"])
def test_a_worker_serves_no_queue_that_does_not_exist(tmp_path: Path, queues: str) -> None:
    (tmp_path / "dspex.yaml").write_text("{}")
    with (
        pytest.raises(AssertionError, match="There is no queue 'nonsense'"),
        running_worker(tmp_path, "--queues", queues),
    ):
        pass
