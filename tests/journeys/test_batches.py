"""Batches, over HTTP, by real workers."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest_simulator import RunningSimulator
from tests.journeys.test_background import LOCAL_WEBHOOKS, SECRET, receiving, until
from tests.plugins.service import config, running_service

LINES = {"content-type": "application/x-ndjson"}


def upload(client: httpx.Client, lines: list[Any], **query: Any) -> httpx.Response:
    content = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
    return client.post("/v1/batches", params={"program": "qa", **query}, content=content, headers=LINES)


def questions(count: int) -> list[dict[str, str]]:
    return [{"question": f"number {number}?"} for number in range(count)]


def over(client: httpx.Client, batch_id: str, seconds: float = 60) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/v1/batches/{batch_id}").json()
        return found if found["status"] not in ("pending", "running") else None

    return until(look, seconds)


def results(client: httpx.Client, batch_id: str) -> list[dict[str, Any]]:
    text = client.get(f"/v1/batches/{batch_id}/results").text
    return [json.loads(line) for line in text.splitlines()]


def test_every_item_gets_its_result_in_order(
    tmp_path: Path, simulator: RunningSimulator, database_url: str
) -> None:
    environment = {"DATABASE_URL": database_url, "DSPEX_WEBHOOK_SECRET": SECRET}
    declared = config(simulator.base_url, extra=LOCAL_WEBHOOKS)
    given: list[Any] = questions(50)
    given[7] = {"query": "?"}
    given[9] = {"question": 9}
    given.insert(20, "")
    with (
        receiving() as receiver,
        running_service(tmp_path, declared, environment=environment) as service,
        service.client() as client,
    ):
        answer = upload(client, given, concurrency=8, webhook_url=receiver.url)
        assert answer.status_code == 202
        batch = answer.json()
        assert (batch["status"], batch["items"], batch["completed"]) == ("pending", 50, 0)
        assert answer.headers["location"] == f"/v1/batches/{batch['id']}"
        done = over(client, batch["id"])
        assert (done["status"], done["completed"], done["failed"]) == ("completed", 48, 2)
        found = results(client, batch["id"])
        assert [one["position"] for one in found] == [*range(1, 21), *range(22, 52)]
        assert [one["position"] for one in found if one["status"] == "failed"] == [8, 10]
        assert found[7]["execution_id"] is None
        pointers = {one["pointer"] for one in found[7]["error"]["problems"]}
        assert pointers == {"/inputs/question", "/inputs/query"}
        one = client.get(f"/v1/executions/{found[0]['execution_id']}").json()
        assert one["inputs"] == given[0]
        assert one["outputs"] == found[0]["outputs"]
        assert [listed["id"] for listed in client.get("/v1/batches").json()["data"]] == [batch["id"]]
        _, body = until(lambda: receiver.got and receiver.got[0])
        told = json.loads(body)
        assert (told["event"], told["batch"]["failed"]) == ("batch.completed", 2)


def test_a_batch_in_one_document(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        body = {
            "program": "qa",
            "inputs": questions(3),
            "parameters": {"temperature": 0.5},
            "metadata": {"a": 1},
        }
        batch = client.post("/v1/batches", json=body).json()
        assert over(client, batch["id"])["completed"] == 3
        first = results(client, batch["id"])[0]["execution_id"]
        record = client.get(f"/v1/executions/{first}").json()
        assert (record["parameters"], record["metadata"]) == ({"temperature": 0.5}, {"a": 1})


def test_what_is_no_input_refuses_the_batch_and_nothing_is_run(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    declared = config(simulator.base_url, extra="jobs: {batch: {items: 100, bytes: 100000}}")
    with running_service(tmp_path, declared) as service, service.client() as client:
        answer = upload(client, [*questions(2), "{oops", "[1]", "", "{}"])
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_batch")
        told = [(one["pointer"], one["code"]) for one in answer.json()["errors"]]
        assert told == [("/3", "not_json"), ("/4", "not_an_object")]
        for response, code in (
            (upload(client, []), "empty_batch"),
            (upload(client, questions(101)), "batch_too_large"),
            (upload(client, [{"question": "x" * 120_000}]), "body_too_large"),
            (upload(client, questions(1), program="absent"), "program_missing"),
            (upload(client, questions(1), version=7), "version_missing"),
            (upload(client, questions(1), color="red"), "bad_request"),
            (upload(client, questions(1), concurrency=0), "bad_request"),
            (upload(client, questions(1), webhook_url="https://example.com"), "webhook_secret_missing"),
            (client.post("/v1/batches", json={"program": "qa"}), "bad_request"),
            (
                client.post("/v1/batches", content="a,b", headers={"content-type": "text/csv"}),
                "not_application_json",
            ),
            (client.get("/v1/batches/absent"), "batch_missing"),
            (client.get("/v1/batches/absent/results"), "batch_missing"),
        ):
            assert response.json()["code"] == code, response.text
        assert client.get("/v1/batches").json()["data"] == []
        assert simulator.calls() == 0


def test_a_cancelled_batch_keeps_what_is_done(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        simulator.control("script", {"rules": [{"inputs": {"question": "hang"}, "fault": {"kind": "hang"}}]})
        given = [*questions(20), {"question": "hang"}, *questions(5)]
        batch_id = upload(client, given, concurrency=1).json()["id"]
        until(lambda: client.get(f"/v1/batches/{batch_id}").json()["completed"] == 20)
        assert client.post(f"/v1/batches/{batch_id}/cancel", json={}).status_code == 202
        done = over(client, batch_id)
        assert (done["status"], done["completed"]) == ("cancelled", 20)
        states = [one["status"] for one in results(client, batch_id)]
        assert states == ["completed"] * 20 + ["cancelled"] * 6
        again = client.post(f"/v1/batches/{batch_id}/cancel", json={})
        assert again.json()["code"] == "job_state"
        # Retried, it does what was left undone.
        simulator.control("script", {"rules": []})
        before = simulator.calls()
        assert client.post(f"/v1/jobs/{batch_id}/retry", json={}).status_code == 202
        assert over(client, batch_id)["completed"] == 26
        assert simulator.calls() - before <= 6


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_a_batch_goes_on_after_kill_9_and_runs_nothing_twice_that_had_finished(
    tmp_path: Path, simulator: RunningSimulator, backend: str, request: pytest.FixtureRequest
) -> None:
    environment = {}
    if backend == "postgresql":
        environment["DATABASE_URL"] = request.getfixturevalue("postgresql_url")
    count, concurrency = 600, 8
    simulator.control("faults", {"latency": "20ms"})
    with (
        running_service(tmp_path, config(simulator.base_url), environment=environment) as service,
        service.client() as client,
    ):
        batch_id = upload(client, questions(count), concurrency=concurrency, use_cache="false").json()["id"]
        for share in (0.2, 0.5):
            until(
                lambda share=share: client.get(f"/v1/batches/{batch_id}").json()["completed"] > share * count
            )
            node = client.get(f"/v1/jobs/{batch_id}").json()["node"]
            os.kill(int(node.rsplit("-", 2)[1]), signal.SIGKILL)
        done = over(client, batch_id, 120)
        assert (done["status"], done["completed"], done["failed"]) == ("completed", count, 0)
        assert len({one["execution_id"] for one in results(client, batch_id)}) == count
        # Those under way when the worker died, and no others, were asked for again.
        assert simulator.calls() <= count + 2 * concurrency
        assert client.get(f"/v1/jobs/{batch_id}").json()["attempts"] == 3


def test_a_stopping_node_lets_items_end_and_the_next_does_the_rest(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    declared = config(simulator.base_url)
    simulator.control("faults", {"latency": "50ms"})
    with running_service(tmp_path, declared) as service, service.client() as client:
        batch_id = upload(client, questions(200), concurrency=4).json()["id"]
        until(lambda: client.get(f"/v1/batches/{batch_id}").json()["completed"] > 20)
        assert service.stop() == 0
    with running_service(tmp_path, declared) as service, service.client() as client:
        assert over(client, batch_id)["completed"] == 200
        assert simulator.calls() == 200


def test_limits_that_pass_fail_no_item(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        limited = {"kind": "rate_limit", "retry_after": 1}
        simulator.control("script", {"rules": [{"calls": [0, 1, 2, 5], "fault": limited}]})
        batch_id = upload(client, questions(10), concurrency=2).json()["id"]
        done = over(client, batch_id)
        assert (done["completed"], done["failed"]) == (10, 0)
        assert simulator.calls() == 14
