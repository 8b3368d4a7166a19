"""Executions in the background, over HTTP, by real workers."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.service import config, running_service

LATER = {"prefer": "respond-async"}
LOCAL_WEBHOOKS = "jobs: {webhooks: {allow_private: true}}"
SECRET = "sesame-open"


def until(condition: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def ask(
    client: httpx.Client, question: str, headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    body = {"inputs": {"question": question}, **more}
    return client.post("/v1/programs/qa/predict", json=body, headers=LATER | (headers or {}))


def ended(client: httpx.Client, execution_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/v1/executions/{execution_id}").json()
        return found if found["status"] not in ("pending", "running") else None

    return until(look)


def status(client: httpx.Client, execution_id: str) -> str:
    return str(client.get(f"/v1/executions/{execution_id}").json()["status"])


def test_an_execution_is_accepted_at_once_and_run_by_a_worker(
    tmp_path: Path, simulator: RunningSimulator, database_url: str
) -> None:
    environment = {"DATABASE_URL": database_url}
    with (
        running_service(tmp_path, config(simulator.base_url), environment=environment) as service,
        service.client() as client,
    ):
        simulator.control("faults", {"latency": "1500ms"})
        answer = ask(client, "Which?", metadata={"a": 1}, session_id="s")
        assert answer.status_code == 202
        accepted = answer.json()
        assert (accepted["status"], accepted["program"], accepted["version"]) == ("pending", "qa", 1)
        assert answer.headers["location"] == f"/v1/executions/{accepted['id']}"
        assert answer.headers["preference-applied"] == "respond-async"
        until(lambda: status(client, accepted["id"]) == "running")
        record = ended(client, accepted["id"])
        assert record["status"] == "completed"
        assert record["outputs"]["answer"]
        assert (record["session_id"], record["metadata"]) == ("s", {"a": 1})
        assert len(record["trace"]) == 1
        simulator.control("faults", {"latency": "0ms"})
        # With a worker there, the next ones start at once.
        waits = []
        for number in range(5):
            found = ended(client, ask(client, f"{number}?").json()["id"])
            began = datetime.fromisoformat(found["started_at"]) - datetime.fromisoformat(found["created_at"])
            waits.append(began.total_seconds())
        assert sorted(waits)[2] < 2
        assert client.get("/ready").status_code == 200
        shown = 'dspex_jobs{kind="execution",state="completed"} 6.0'
        until(lambda: shown in client.get("/metrics").text)
        assert service.stop() == 0
    assert "Traceback" not in service.log


def test_what_could_be_refused_is_refused_at_once(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        for body, code in (
            ({"inputs": {}}, "invalid_inputs"),
            (
                {"inputs": {"question": "?"}, "parameters": {"api_base": "http://elsewhere"}},
                "invalid_parameters",
            ),
            (
                {"inputs": {"question": "?"}, "webhook": {"url": "https://example.com"}},
                "webhook_secret_missing",
            ),
            ({"inputs": {"question": "?"}, "webhook": {"url": "ftp://example.com"}}, "bad_request"),
            ({"inputs": {"question": "x" * 1_100_000}}, "inputs_too_large"),
            ({"inputs": {"question": "?"}, "version": 9}, "version_missing"),
        ):
            answer = client.post("/v1/programs/qa/predict", json=body, headers=LATER)
            assert answer.json()["code"] == code, answer.text
        answer = client.post("/v1/programs/absent/predict", json={"inputs": {}}, headers=LATER)
        assert answer.json()["code"] == "program_missing"
        synchronous = client.post(
            "/v1/programs/qa/predict",
            json={"inputs": {"question": "?"}, "webhook": {"url": "https://example.com"}},
        )
        assert synchronous.json()["code"] == "bad_request"
        assert client.get("/v1/jobs").json()["data"] == []
    # Nobody asked for a worker, so there was none.
    assert "worker_started" not in service.log


def test_a_signature_without_a_program_runs_in_the_background(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        body = {"signature": "topic -> haiku", "inputs": {"topic": "rain"}}
        answer = client.post("/v1/predict", json=body, headers=LATER)
        assert answer.status_code == 202
        record = ended(client, answer.json()["id"])
        assert (record["status"], record["program"]) == ("completed", "adhoc")
        wrong = client.post("/v1/predict", json={**body, "inputs": {}}, headers=LATER)
        assert wrong.json()["code"] == "invalid_inputs"


def test_an_idempotency_key_holds_in_the_background(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        simulator.control("faults", {"latency": "500ms"})
        once = {"idempotency-key": "once"}
        first, again = ask(client, "Which?", once), ask(client, "Which?", once)
        assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
        assert first.json()["id"] == again.json()["id"]
        assert ask(client, "What?", once).json()["code"] == "idempotency_key_reused"
        ended(client, first.json()["id"])
        late = ask(client, "Which?", once)
        assert (late.json()["id"], late.json()["status"]) == (first.json()["id"], "completed")
        assert simulator.calls() == 1


def test_cancelling_reaches_the_model(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        simulator.control("script", {"rules": [{"fault": {"kind": "hang"}}]})
        execution_id = ask(client, "Which?").json()["id"]
        until(lambda: simulator.calls() == 1)
        answer = client.post(f"/v1/executions/{execution_id}/cancel", json={})
        assert answer.status_code == 202
        record = ended(client, execution_id)
        assert (record["status"], record["error"]["message"]) == ("cancelled", "It was cancelled.")
        assert record["trace"][0]["error"]["code"] == "cancelled"
        job = client.get(f"/v1/jobs/{execution_id}").json()
        assert (job["status"], job["attempts"]) == ("cancelled", 1)
        over = client.post(f"/v1/executions/{execution_id}/cancel", json={})
        assert (over.status_code, over.json()["code"]) == (409, "job_state")
        assert client.post("/v1/queues/llm_calls/pause", json={}).status_code == 200
        waiting = ask(client, "What?").json()["id"]
        assert client.post(f"/v1/executions/{waiting}/cancel", json={}).json()["status"] == "cancelled"
        assert simulator.calls() == 1
        # Begun anew, when somebody wants it after all.
        simulator.control("script", {"rules": []})
        assert client.post(f"/v1/jobs/{waiting}/retry", json={}).json()["status"] == "queued"
        assert status(client, waiting) == "pending"
        client.post("/v1/queues/llm_calls/resume", json={})
        assert ended(client, waiting)["status"] == "completed"


def test_a_rate_limit_is_waited_out_without_a_slot(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        limited = {"calls": [0], "fault": {"kind": "rate_limit", "retry_after": 2}}
        simulator.control("script", {"rules": [limited]})
        execution_id = ask(client, "Which?").json()["id"]
        until(lambda: simulator.calls() == 1)
        job = until(lambda: _waiting(client, execution_id))
        assert (job["attempts"], job["error"]["code"], job["node"]) == (0, "lm_rate_limited", None)
        assert status(client, execution_id) == "pending"
        record = ended(client, execution_id)
        assert record["status"] == "completed"
        assert [call["error"] is None for call in record["trace"]] == [False, True]
        assert simulator.calls() == 2


def _waiting(client: httpx.Client, job_id: str) -> dict[str, Any] | None:
    job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
    return job if job["status"] == "queued" and job["error"] is not None else None


def test_errors_of_the_model_are_tried_five_times(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        simulator.control("script", {"rules": [{"fault": {"kind": "server_error"}}]})
        record = until(lambda: _failed(client, ask(client, "Which?").json()["id"]), 90)
        assert record["error"]["code"] == "lm_server_error"
        assert simulator.calls() == len(record["trace"]) == 5


def _failed(client: httpx.Client, execution_id: str) -> dict[str, Any]:
    record = until(lambda: _over(client, execution_id), 90)
    assert record["status"] == "failed"
    return record


def _over(client: httpx.Client, execution_id: str) -> dict[str, Any] | None:
    record: dict[str, Any] = client.get(f"/v1/executions/{execution_id}").json()
    return record if record["status"] not in ("pending", "running") else None


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_replaced_and_loses_nothing(
    tmp_path: Path, simulator: RunningSimulator, workers: int
) -> None:
    arguments = ("--workers", str(workers))
    with (
        running_service(tmp_path, config(simulator.base_url), *arguments) as service,
        service.client() as client,
    ):
        done = ended(client, ask(client, "Done?").json()["id"])
        simulator.control("faults", {"latency": "2s"})
        execution_id = ask(client, "Which?").json()["id"]
        until(lambda: simulator.calls() == 2)
        node = until(lambda: client.get(f"/v1/jobs/{execution_id}").json()["node"])
        _kill(node)
        record = ended(client, execution_id)
        assert record["status"] == "completed"
        assert record["node"] != node
        assert client.get(f"/v1/jobs/{execution_id}").json()["attempts"] == 2
        # What had finished was not run again.
        assert simulator.calls() == 3
        assert client.get(f"/v1/executions/{done['id']}").json()["completed_at"] == done["completed_at"]
        assert service.stop() == 0


def _kill(node: str) -> None:
    import os
    import signal

    os.kill(int(node.rsplit("-", 2)[1]), signal.SIGKILL)


def test_a_killed_node_goes_on_after_its_restart(tmp_path: Path, simulator: RunningSimulator) -> None:
    declared = config(simulator.base_url)
    simulator.control("faults", {"latency": "3s"})
    with running_service(tmp_path, declared) as service, service.client() as client:
        execution_id = ask(client, "Which?").json()["id"]
        until(lambda: simulator.calls() == 1)
        service.kill()
    simulator.control("faults", {"latency": "0ms"})
    with running_service(tmp_path, declared) as service, service.client() as client:
        started = time.monotonic()
        assert ended(client, execution_id)["status"] == "completed"
        # A dead process lets go at once; nobody waits for its heartbeat to grow old.
        assert time.monotonic() - started < 15


def test_a_stopping_node_gives_back_what_it_does_not_end(tmp_path: Path, simulator: RunningSimulator) -> None:
    declared = config(simulator.base_url, extra="server: {drain_s: 1}")
    simulator.control("script", {"rules": [{"calls": [0], "fault": {"kind": "hang"}}]})
    with running_service(tmp_path, declared) as service, service.client() as client:
        execution_id = ask(client, "Which?").json()["id"]
        until(lambda: simulator.calls() == 1)
        assert service.stop() == 0
    with running_service(tmp_path, declared) as service, service.client() as client:
        assert ended(client, execution_id)["status"] == "completed"
        job = client.get(f"/v1/jobs/{execution_id}").json()
        assert job["attempts"] == 1


@dataclass
class Receiver:
    """Somebody's webhook: what it got, and what it answers."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Silence."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}/hook?token=t"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield receiver
        server.shutdown()


def test_a_webhook_is_told_with_a_signature(tmp_path: Path, simulator: RunningSimulator) -> None:
    declared = config(simulator.base_url, extra=LOCAL_WEBHOOKS)
    environment = {"DSPEX_WEBHOOK_SECRET": SECRET}
    with (
        receiving() as receiver,
        running_service(tmp_path, declared, environment=environment) as service,
        service.client() as client,
    ):
        execution_id = ask(client, "Which?", webhook={"url": receiver.url}).json()["id"]
        headers, body = until(lambda: receiver.got and receiver.got[0])
        told = json.loads(body)
        assert told["event"] == headers["x-dspex-event"] == "execution.completed"
        assert told["project"] == "default"
        assert told["execution"]["id"] == execution_id
        assert told["execution"]["outputs"]["answer"]
        at, _, signature = headers["x-dspex-signature"].partition(",")
        assert abs(int(at.removeprefix("t=")) - time.time()) < 60
        signed = hmac.new(SECRET.encode(), f"{at.removeprefix('t=')}.".encode() + body, hashlib.sha256)
        assert signature == f"v1={signed.hexdigest()}"
        (notice,) = until(lambda: _notices(client, execution_id, "completed"))
        assert notice["kind"] == "webhook"
        # One that says no is not asked again, and the job tells.
        receiver.answers.append(410)
        execution_id = ask(client, "What?", webhook={"url": receiver.url}).json()["id"]
        (notice,) = until(lambda: _notices(client, execution_id, "failed"))
        assert "410" in notice["error"]["message"]
    assert SECRET not in service.log


def _notices(client: httpx.Client, parent: str, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/jobs", params={"parent": parent, "status": state}).json()[
        "data"
    ]
    return found


def test_private_addresses_are_not_told(tmp_path: Path, simulator: RunningSimulator) -> None:
    environment = {"DSPEX_WEBHOOK_SECRET": SECRET}
    with (
        receiving() as receiver,
        running_service(tmp_path, config(simulator.base_url), environment=environment) as service,
        service.client() as client,
    ):
        execution_id = ask(client, "Which?", webhook={"url": receiver.url}).json()["id"]
        (notice,) = until(lambda: _notices(client, execution_id, "failed"))
        assert notice["error"]["code"] == "webhook_refused"
        assert receiver.got == []
