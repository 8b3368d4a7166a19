"""Evaluations over HTTP."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
import pytest_asyncio

from dspex.configuration.settings import Settings
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import Score
from dspex.evaluations.ports import MetricTask
from dspex.executions.ports import PoolHost
from dspex.kit.errors import Invalid
from tests.interfaces.keyed import client_with, key_for, keyed_node
from tests.interfaces.node import TestNode, mock_program
from tests.plugins.pools import PROJECT
from tests.unit.evaluations.working import House, prepared


@pytest.fixture
async def house() -> House:
    return House()


@pytest.fixture
async def client(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with house.node.client() as client:
        yield client


async def done(house: House, client: httpx.AsyncClient, **more: Any) -> str:
    evaluation_id = await house.ask(client, **more)
    await house.take(evaluation_id)
    return evaluation_id


async def test_an_evaluation_is_asked_for_and_looked_at(house: House, client: httpx.AsyncClient) -> None:
    await prepared(client)
    metric = {"name": "exact_match", "field": "answer"}
    body = {"program": "qa", "dataset": "rows@1", "metric": metric, "concurrency": 4, "budget_usd": 2}
    answer = await client.post("/v1/evaluations", json=body)
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"/v1/evaluations/{made['id']}"
    assert (made["status"], made["examples"], made["concurrency"]) == ("queued", 10, 4)
    assert (made["program"], made["version"]) == ("qa", 1)
    assert (made["dataset"], made["dataset_version"], made["budget_usd"]) == ("rows", 1, 2.0)
    assert made["metric"] == {"name": "exact_match", "fields": ["answer"]}
    assert made["progress"] == {"examples": 10, "scored": 0, "failed": 0, "mean": None, "cost_usd": 0.0}
    await house.take(made["id"])
    found = (await client.get(f"/v1/evaluations/{made['id']}")).json()
    assert (found["status"], found["result"]["mean"], found["error"]) == ("completed", 0.7, None)
    listed = (await client.get("/v1/evaluations", params={"program": "qa", "status": "completed"})).json()
    assert listed == {"data": [found], "next_cursor": None}
    assert (await client.get("/v1/evaluations", params={"dataset": "others"})).json()["data"] == []
    job = (await client.get(f"/v1/jobs/{made['id']}")).json()
    assert (job["kind"], job["subject"], job["result"]["mean"]) == ("evaluation", "qa", 0.7)


async def test_results_in_order_lowest_first_and_failed_ones(house: House, client: httpx.AsyncClient) -> None:
    rules = [{"when": {"question": "4?"}, "fault": {"kind": "internal", "message": "broken"}}]
    await prepared(client, rules=rules)
    place = f"/v1/evaluations/{await done(house, client)}/results"
    first = (await client.get(place, params={"limit": 4})).json()
    assert [one["position"] for one in first["data"]] == [1, 2, 3, 4]
    assert first["data"][2]["fields"] == {"answer": 0.0}
    rest = (await client.get(place, params={"cursor": first["next_cursor"]})).json()
    assert [one["position"] for one in rest["data"]] == [5, 6, 7, 8, 9, 10]
    lowest = (await client.get(place, params={"order": "score", "limit": 3})).json()["data"]
    assert [(one["position"], one["score"]) for one in lowest] == [(3, 0.0), (6, 0.0), (9, 0.0)]
    (failed,) = (await client.get(place, params={"status": "failed"})).json()["data"]
    assert (failed["position"], failed["score"], failed["status"]) == (4, None, "failed")
    told = {"origin": "infrastructure", "kind": "internal", "code": "scripted_fault", "message": "broken"}
    assert failed["error"] == told
    for query, code in (
        ({"order": "down"}, "bad_request"),
        ({"status": "odd"}, "bad_request"),
        ({"cursor": "nonsense"}, "bad_cursor"),
        ({"order": "score", "cursor": first["next_cursor"]}, "bad_cursor"),
    ):
        answer = await client.get(place, params=query)
        assert (answer.status_code in (400, 422), answer.json()["code"]) == (True, code), query


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def refusing() -> AsyncIterator[httpx.AsyncClient]:
    """A node for what leaves nothing behind; to make one takes 0.3 s."""
    async with House().node.client() as client:
        await prepared(client, 2)
        for name, row in (
            ("unlabelled", {"inputs": {"question": "?"}}),
            ("others", {"inputs": {"query": "?"}, "outputs": {"answer": "yes"}}),
            ("richer", {"inputs": {"question": "?"}, "outputs": {"answer": "yes", "titles": []}}),
        ):
            made = await client.post("/v1/datasets", json={"name": name, "rows": [row]})
            assert made.status_code == 201
        yield client


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"program": "absent"}, "program_missing", None),
        ({"version": 7}, "version_missing", None),
        ({"dataset": "absent"}, "dataset_missing", None),
        ({"dataset": "rows@9"}, "dataset_missing", None),
        ({"dataset": "rows@x"}, "bad_request", "/dataset"),
        ({"dataset": "rows@1", "dataset_version": 2}, "bad_request", "/dataset_version"),
        ({"metric": "accuracy"}, "bad_metric", "/metric"),
        ({"metric": {"name": "f1", "field": "absent"}}, "bad_metric", "/metric/fields"),
        ({"metric": {"name": "f1", "color": 1}}, "bad_metric", "/metric/color"),
        ({"metric": {"python": "absent.module:f"}}, "bad_reference", "/metric/reference"),
        ({"metric": {"name": "lm_judge", "model": "absent"}}, "unknown_model", "/metric/model"),
        ({"metric": "semantic_similarity"}, "unknown_model", "/metric/model"),
        (
            {"metric": {"name": "semantic_similarity", "model": "simulator"}},
            "wrong_model_type",
            "/metric/model",
        ),
        ({"dataset": "unlabelled"}, "dataset_not_fitting", "/dataset"),
        ({"dataset": "others"}, "dataset_not_fitting", "/dataset"),
        ({"dataset": "richer"}, "bad_metric", "/metric"),
        ({"budget_usd": 0}, "bad_request", "/budget_usd"),
        ({"budget_usd": "much"}, "bad_request", "/budget_usd"),
        ({"concurrency": 0}, "bad_request", "/concurrency"),
        ({"limit": 0}, "bad_request", "/limit"),
        ({"color": "red"}, "bad_request", "/color"),
        ({"program": None}, "bad_request", "/program"),
    ],
)
async def test_what_does_not_fit_is_refused_before_it_is_queued(
    refusing: httpx.AsyncClient, changes: dict[str, Any], code: str, pointer: str | None
) -> None:
    answer = await refusing.post("/v1/evaluations", json={"program": "qa", "dataset": "rows", **changes})
    assert answer.json()["code"] == code, answer.text
    assert 400 <= answer.status_code < 500
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert (await refusing.get("/v1/evaluations")).json()["data"] == []
    assert (await refusing.get("/v1/jobs")).json()["data"] == []


async def test_a_budget_needs_prices_and_a_draft_is_not_run(client: httpx.AsyncClient) -> None:
    await prepared(client, 2)
    body = {"program": "qa", "dataset": "rows", "metric": "lm_judge", "budget_usd": 1}
    answer = await client.post("/v1/evaluations", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "budget_needs_price")
    assert answer.json()["errors"][0]["pointer"] == "/budget_usd"
    await client.post("/v1/programs", json={"name": "draft", "signature": "question -> answer"})
    answer = await client.post("/v1/evaluations", json={"program": "draft", "dataset": "rows"})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_executable")


async def test_code_is_named_by_whom_may_name_code() -> None:
    node = keyed_node(code_paths=(PROJECT,))
    metric = {"python": "shop.metrics:exact"}
    body = {"program": "qa", "dataset": "rows", "metric": metric}
    async with client_with(node, await key_for(node, "admin")) as client:
        await prepared(client, 2)
    async with client_with(node, await key_for(node, "developer")) as client:
        answer = await client.post("/v1/evaluations", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "code_not_allowed")
        assert answer.json()["errors"][0]["pointer"] == "/metric"
    async with client_with(node, await key_for(node, "admin")) as client:
        made = (await client.post("/v1/evaluations", json=body)).json()
        assert made["metric"]["reference"] == "shop.metrics:exact"
        assert len(made["metric"]["code"]) == 64
    async with client_with(node, await key_for(node, "read-only")) as client:
        assert (await client.post("/v1/evaluations", json=body)).status_code == 403
        assert (await client.get("/v1/evaluations")).status_code == 200
    async with client_with(node, await key_for(node, "caller")) as client:
        assert (await client.get("/v1/evaluations")).status_code == 403


async def test_a_metric_that_no_worker_can_import_is_refused_before_anything_is_queued() -> None:
    class Looking:
        async def score(self, task: MetricTask, host: PoolHost) -> Sequence[Score | MetricFailed]:
            raise Invalid("shop/metrics.py has no 'nope'.", code="bad_metric")

    node = TestNode(Settings(log_level="error", code_paths=(PROJECT,)), metric_pools=Looking())
    async with node.client() as client:
        await prepared(client, 2)
        body = {"program": "qa", "dataset": "rows", "metric": {"python": "shop.metrics:nope"}}
        answer = await client.post("/v1/evaluations", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_metric")
        assert answer.json()["errors"][0]["pointer"] == "/metric/reference"
        assert (await client.get("/v1/evaluations")).json()["data"] == []


async def compared(house: House, client: httpx.AsyncClient) -> tuple[str, str]:
    """Of version 1, which says yes, and version 2, which is right about 3 and 6 and wrong about 1."""
    await prepared(client)
    rules = [
        {"when": {"question": "1?"}, "outputs": {"answer": "no"}},
        {"when": {"question": "3?"}, "outputs": {"answer": "no"}},
        {"when": {"question": "6?"}, "outputs": {"answer": "no"}},
        {"when": {"question": "5?"}, "fault": {"kind": "internal"}},
    ]
    body = {"executor": "mock", "mock": {"outputs": {"answer": "yes"}, "rules": rules}, "initialize": True}
    made = await client.post("/v1/programs/qa/versions", json=body)
    assert made.status_code == 201, made.text
    return await done(house, client, version=1), await done(house, client, version=2)


async def test_two_versions_are_compared(house: House, client: httpx.AsyncClient) -> None:
    a, b = await compared(house, client)
    found = (await client.get("/v1/evaluations/compare", params={"a": a, "b": b})).json()
    assert (found["a"]["version"], found["a"]["mean"], found["b"]["version"]) == (1, 0.7, 2)
    assert (found["b"]["scored"], found["b"]["failed"]) == (9, 1)
    paired = found["paired"]
    assert (paired["examples"], paired["wins"], paired["losses"], paired["ties"]) == (9, 2, 1, 6)
    assert paired["difference"] == pytest.approx(1 / 9)
    assert paired["mean_b"] - paired["mean_a"] == pytest.approx(1 / 9)
    assert (paired["p_value"], paired["test"]) == (1.0, "exact")
    assert paired["interval"]["low"] < 1 / 9 < paired["interval"]["high"]
    place = "/v1/evaluations/compare/examples"
    first = (await client.get(place, params={"a": a, "b": b, "limit": 2})).json()
    assert [(one["position"], one["difference"]) for one in first["data"]] == [(1, -1.0), (3, 1.0)]
    assert first["data"][1]["b"]["outputs"] == {"answer": "no"}
    rest = (await client.get(place, params={"a": a, "b": b, "cursor": first["next_cursor"]})).json()
    assert [(one["position"], one["difference"]) for one in rest["data"]] == [(5, None), (6, 1.0)]
    everything = (await client.get(place, params={"a": a, "b": b, "changed": "false"})).json()
    assert len(everything["data"]) == 10
    bad = await client.get(place, params={"a": a, "b": b, "cursor": "nonsense"})
    assert bad.json()["code"] == "bad_cursor"


async def test_other_rows_and_other_metrics_are_not_compared(house: House, client: httpx.AsyncClient) -> None:
    a, _ = await compared(house, client)
    other = await done(house, client, version=1, metric="f1")
    rows = [{"inputs": {"question": "new?"}, "outputs": {"answer": "yes"}}]
    await client.post("/v1/datasets", json={"name": "rows", "rows": rows})
    elsewhere = await done(house, client, version=1)
    for b, why in ((other, "metrics"), (elsewhere, "rows")):
        for place in ("compare", "compare/examples"):
            answer = await client.get(f"/v1/evaluations/{place}", params={"a": a, "b": b})
            assert (answer.status_code, answer.json()["code"]) == (409, "not_comparable")
            assert why in answer.json()["detail"]
            assert "{" not in answer.json()["detail"]
    for query in ({"a": a}, {"a": a, "b": a, "c": a}):
        assert (await client.get("/v1/evaluations/compare", params=query)).json()["code"] == "bad_request"


async def test_its_events_end_with_it_and_can_be_read_on(house: House, client: httpx.AsyncClient) -> None:
    await prepared(client)
    evaluation_id = await house.ask(client)
    place = f"/v1/evaluations/{evaluation_id}/events"
    told: list[tuple[str, str, Any]] = []
    async with (
        house.node.serving() as port,
        httpx.AsyncClient(timeout=60) as reader,
        reader.stream("GET", f"http://127.0.0.1:{port}{place}") as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        async for line in stream.aiter_lines():
            name, _, value = line.partition(": ")
            if name:
                event[name] = value
            elif "data" in event:
                told.append((event["id"], event["event"], json.loads(event["data"])))
                event = {}
                if len(told) == 1:
                    await house.take(evaluation_id)
    assert (told[0][1], told[0][2]["status"]) == ("progress", "queued")
    assert told[-1][0] == f"{evaluation_id}:end"
    assert (told[-1][1], told[-1][2]["result"]["mean"]) == ("end", 0.7)
    over = await client.get(place, headers={"last-event-id": told[-1][0]})
    assert over.status_code == 204
    again = await client.get(place, headers={"last-event-id": told[0][0]})
    assert again.text.count("event: end") == 1 and "event: progress" not in again.text
    for bad in ("nonsense", f"{evaluation_id}:x", "other:1"):
        answer = await client.get(place, headers={"last-event-id": bad})
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_last_event_id")


async def test_one_that_is_over_can_be_deleted(house: House, client: httpx.AsyncClient) -> None:
    await prepared(client, 3)
    evaluation_id = await house.ask(client)
    place = f"/v1/evaluations/{evaluation_id}"
    early = await client.delete(place)
    assert (early.status_code, early.json()["code"]) == (409, "evaluation_open")
    await house.take(evaluation_id)
    assert (await client.delete(place)).json() == {"id": evaluation_id}
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/results"),
        ("GET", "/events"),
        ("POST", "/cancel"),
    ):
        answer = await client.request(method, place + path)
        assert (answer.status_code, answer.json()["code"]) == (404, "evaluation_missing")
    assert (await client.get("/v1/evaluations/odd%00one")).status_code == 404


async def test_a_waiting_one_is_cancelled_at_once(house: House, client: httpx.AsyncClient) -> None:
    await prepared(client, 3)
    evaluation_id = await house.ask(client)
    answer = await client.post(f"/v1/evaluations/{evaluation_id}/cancel", json={})
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    audit = (await client.get("/v1/audit")).json()["data"]
    actions = {one["action"]: one for one in audit}
    assert actions["evaluation.cancel"]["target"] == evaluation_id
    assert actions["evaluation.create"]["details"]["evaluation"] == evaluation_id


async def test_one_can_be_paused_and_says_so(house: House, client: httpx.AsyncClient) -> None:
    await prepared(client)
    evaluation_id = await house.ask(client)
    paused = await client.post(f"/v1/jobs/{evaluation_id}/pause", json={})
    assert paused.json()["status"] == "paused", paused.text
    assert (await client.get(f"/v1/evaluations/{evaluation_id}")).json()["status"] == "paused"
    listed = await client.get("/v1/evaluations", params={"status": "paused"})
    assert [one["id"] for one in listed.json()["data"]] == [evaluation_id]
    assert (await client.get("/v1/evaluations", params={"status": "queued"})).json()["data"] == []
    assert (await client.post(f"/v1/jobs/{evaluation_id}/resume", json={})).json()["status"] == "queued"
    await house.take(evaluation_id)
    assert (await client.get(f"/v1/evaluations/{evaluation_id}")).json()["status"] == "completed"


async def test_inputs_with_defaults_may_be_left_out() -> None:
    house = House(TestNode())
    async with house.node.client() as client:
        await mock_program(client, "qa", signature="question, k: int = 3 -> answer")
        rows = [{"inputs": {"question": "?"}, "outputs": {"answer": "x"}}]
        await client.post("/v1/datasets", json={"name": "rows", "rows": rows})
        evaluation_id = await done(house, client)
        found = (await client.get(f"/v1/evaluations/{evaluation_id}")).json()
        assert (found["status"], found["result"]["scored"]) == ("completed", 1)
