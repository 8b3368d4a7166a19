"""How a node ends: told to, killed, or left by its caller."""

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from dspex.configuration.settings import Settings
from dspex.executions.records import Execution
from dspex.storage.opening import open_database
from tests.conftest_simulator import RunningSimulator
from tests.making import execution
from tests.plugins.databases import outside_loop
from tests.plugins.service import Service, config, running_service


def wait_for(condition: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_sigterm_finishes_what_is_in_flight(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, ThreadPoolExecutor() as pool:
        simulator.control("faults", {"latency": "1500ms"})
        waiting = pool.submit(service.predict, "qa", {"question": "Which?"})
        wait_for(lambda: simulator.calls() == 1)
        assert service.stop() == 0
        assert waiting.result().json()["status"] == "completed"
    simulator.control("faults", {"latency": "0ms"})


def test_what_outlasts_the_drain_is_told_so_and_recorded(tmp_path: Path, simulator: RunningSimulator) -> None:
    declared = config(simulator.base_url, extra="server: {drain_s: 1}")
    with running_service(tmp_path, declared) as service, ThreadPoolExecutor() as pool:
        simulator.control("script", {"rules": [{"fault": {"kind": "hang"}}]})
        waiting = pool.submit(service.predict, "qa", {"question": "Which?"})
        wait_for(lambda: simulator.calls() == 1)
        assert service.stop() == 0
        answer = waiting.result()
        assert (answer.status_code, answer.json()["code"]) == (503, "node_stopping")
    with running_service(tmp_path, declared) as service, service.client() as client:
        (record,) = client.get("/v1/executions").json()["data"]
        assert record["status"] == "cancelled"
        assert "node stopped" in record["error"]["message"]


SLOWLY = """\
server: {drain_s: 600}
limits: {timeout_s: 600}
programs:
  - {name: quick, signature: "question -> answer", executor: mock}
  - {name: slow, signature: "question -> answer", executor: mock, mock: {latency_ms: 600000}}
"""


def test_jobs_end_while_requests_are_finished_and_not_after_that(tmp_path: Path) -> None:
    with running_service(tmp_path, SLOWLY) as service, ThreadPoolExecutor() as pool:
        with service.client() as client:
            inputs = {"inputs": {"question": "?"}}
            accepted = client.post(
                "/v1/programs/quick/predict", json=inputs, headers={"prefer": "respond-async"}
            )
            assert accepted.status_code == 202
            wait_for(lambda: "worker_started" in service.log, 90)
            # For as long as it takes: a caller that leaves would end the request.
            pool.submit(httpx.post, f"{service.url}/v1/programs/slow/predict", json=inputs, timeout=600)
            wait_for(lambda: "dspy_active_predictions 1.0" in client.get("/metrics").text, 90)
        service.process.terminate()
        # Long before the request's own time is over.
        wait_for(lambda: "worker_stopping" in service.log, 90)
        service.kill()


def test_a_caller_that_leaves_ends_the_call_to_the_model(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        simulator.control("script", {"rules": [{"fault": {"kind": "hang"}}]})
        with pytest.raises(httpx.ReadTimeout), service.client() as leaving:
            leaving.post("/v1/programs/qa/predict", json={"inputs": {"question": "Which?"}}, timeout=0.5)

        def cancelled() -> bool:
            listed = client.get("/v1/executions", params={"status": "cancelled"}).json()["data"]
            return len(listed) == 1

        wait_for(cancelled)


def test_what_a_dead_node_left_running_is_failed(
    tmp_path: Path, simulator: RunningSimulator, database_url: str
) -> None:
    began = datetime.now(UTC) - timedelta(hours=1)
    left = execution(status="running", node="dead", created_at=began, started_at=began)
    outside_loop(lambda: asyncio.run(_leave_behind(database_url, left)))
    environment = {"DATABASE_URL": database_url}
    with (
        running_service(tmp_path, config(simulator.base_url), environment=environment) as service,
        service.client() as client,
    ):
        wait_for(lambda: client.get(f"/v1/executions/{left.id}").json()["status"] == "failed")
        record = client.get(f"/v1/executions/{left.id}").json()
        assert record["error"]["code"] == "node_died"
        assert client.get("/v1/executions", params={"status": "running"}).json()["data"] == []


async def _leave_behind(database_url: str, left: Execution) -> None:
    """As a node does that beat when it began and never again."""
    async with open_database(Settings(database_url=database_url)) as database:
        await database.nodes.beat(left.node, left.created_at)
        await database.recorder.record(left)


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_kill_9_loses_nothing_that_was_answered(
    tmp_path: Path, simulator: RunningSimulator, backend: str, request: pytest.FixtureRequest
) -> None:
    environment = {}
    if backend == "postgresql":
        environment["DATABASE_URL"] = request.getfixturevalue("postgresql_url")
    answered: list[str] = []
    declared = config(simulator.base_url)
    with running_service(tmp_path, declared, environment=environment) as service:
        _load_until_killed(service, answered)
    assert len(answered) > 50
    with running_service(tmp_path, declared, environment=environment) as service, service.client() as client:
        for execution_id in answered:
            record = client.get(f"/v1/executions/{execution_id}")
            assert record.status_code == 200, execution_id
            assert record.json()["status"] == "completed"


def _load_until_killed(service: Service, answered: list[str]) -> None:
    enough = threading.Event()

    def ask(caller: int) -> None:
        with service.client() as client:
            for number in range(10_000):
                try:
                    body = {"inputs": {"question": f"{caller}/{number}?"}}
                    answer = client.post("/v1/programs/qa/predict", json=body)
                except httpx.TransportError:
                    return
                assert answer.status_code == 200
                answered.append(answer.json()["id"])
                if len(answered) > 200:
                    enough.set()

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, caller) for caller in range(8)]
        assert enough.wait(60)
        os.killpg(service.process.pid, signal.SIGKILL)
        for one in asking:
            one.result(timeout=30)
