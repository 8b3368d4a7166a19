"""Optimizations over HTTP, on a node whose optimizers are scripted."""

from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from dspex.jobs import rules
from dspex.jobs.records import Completed, Failed, JobError
from dspex.kit.errors import Invalid, Problem
from dspex.optimizations.records import Event, Standing
from dspex.providers.memory.kept_optimizations import KeptOptimizations
from tests.interfaces.node import TestNode
from tests.making import NOON, optimization
from tests.unit.optimizations.house import Scripted
from tests.unit.programs.compiling import Compiler

ROWS = [{"inputs": {"question": f"{n}?"}, "outputs": {"answer": f"{n}"}} for n in range(10)]
ORDER = {"program": "qa", "dataset": "questions"}


async def furnished() -> tuple[TestNode, httpx.AsyncClient]:
    node = TestNode(compiler=Compiler())
    client = node.client()
    made = await client.post(
        "/v1/programs", json={"name": "qa", "signature": "question -> answer", "deploy": True}
    )
    assert made.json()["status"] == "deployed", made.text
    made = await client.post("/v1/datasets", json={"name": "questions", "rows": ROWS})
    assert made.status_code == 201, made.text
    return node, client


async def order(client: httpx.AsyncClient, **more: Any) -> httpx.Response:
    return await client.post("/v1/optimizations", json={**ORDER, **more})


async def test_one_is_queued_listed_paused_and_cancelled() -> None:
    _, client = await furnished()
    made = await order(client, optimizer="MIPROv2", config={"auto": "light"}, budget_usd=None)
    assert made.status_code == 202, made.text
    document = made.json()
    assert made.headers["location"] == f"/v1/optimizations/{document['id']}"
    assert (document["status"], document["train_rows"], document["validation_rows"]) == ("queued", 7, 3)
    place = made.headers["location"]
    whole = (await client.get(place)).json()
    assert {name: whole[name] for name in document} == document
    assert (whole["curve"], whole["result"]) == ([], None)
    listed = (await client.get("/v1/optimizations", params={"program": "qa", "status": "queued"})).json()
    assert [one["id"] for one in listed["data"]] == [document["id"]]
    assert (await client.get("/v1/optimizations", params={"optimizer": "GEPA"})).json()["data"] == []
    assert (await client.get("/v1/optimizations", params={"status": "nonsense"})).status_code == 422
    job = (await client.get(f"/v1/jobs/{document['id']}")).json()
    assert (job["kind"], job["queue"], job["subject"]) == ("optimization", "optimization", "qa")
    assert (await client.post(f"{place}/pause", json={})).json()["status"] == "paused"
    again = await client.post(f"{place}/pause", json={})
    assert (again.status_code, again.json()["code"]) == (409, "job_state")
    assert (await client.post(f"{place}/resume", json={})).json()["status"] == "queued"
    assert (await client.post(f"/v1/jobs/{document['id']}/pause", json={})).json()["status"] == "paused"
    assert (await client.post(f"/v1/jobs/{document['id']}/resume", json={})).json()["status"] == "queued"
    nothing = await client.post(f"{place}/keep", json={})
    assert (nothing.status_code, nothing.json()["code"]) == (409, "nothing_found")
    cancelled = await client.post(f"{place}/cancel", json={})
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    for way in ("cancel", "pause", "resume"):
        assert (await client.post(f"{place}/{way}", json={})).json()["code"] == "job_state"


async def test_a_unique_one_is_given_back() -> None:
    _, client = await furnished()
    first, again = await order(client, unique=True), await order(client, unique=True)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"program": 5}, 422, "bad_request", "/program"),
        ({"nonsense": 1}, 422, "bad_request", "/nonsense"),
        ({"budget_usd": "much"}, 422, "bad_request", "/budget_usd"),
        ({"budget_usd": 0}, 422, "bad_optimization", "/budget_usd"),
        ({"budget_usd": 1}, 422, "budget_needs_price", "/budget_usd"),
        ({"metric": {"name": "f1", "fields": []}}, 422, "bad_metric", "/metric/fields"),
        ({"metric": {"python": "a:b"}}, 422, "bad_reference", "/metric"),
        ({"priority": 10}, 422, "bad_request", "/priority"),
        ({"dataset": "x" * 141}, 422, "bad_request", "/dataset"),
        ({"dataset": "questions@99999999999"}, 422, "bad_dataset_name", "/dataset"),
        ({"dataset": "absent"}, 404, "dataset_missing", None),
        ({"program": "absent"}, 404, "program_missing", None),
        ({"seed": 2**40}, 422, "bad_optimization", "/seed"),
        ({"webhook": {"url": "https://example.com"}}, 422, "webhook_secret_missing", None),
    ],
)
async def test_bad_orders_are_told_by_their_place(
    body: dict[str, Any], status: int, code: str, pointer: str | None
) -> None:
    _, client = await furnished()
    for address in ("/v1/optimizations", "/v1/optimizations/estimate"):
        if "webhook" in body and address.endswith("estimate"):
            continue
        refused = await client.post(address, json={**ORDER, **body})
        assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
        if pointer is not None:
            assert pointer in [one["pointer"] for one in refused.json()["errors"]]


async def test_what_the_optimizer_refuses_is_told_by_its_place() -> None:
    node, client = await furnished()
    assert isinstance(node.optimizers, Scripted)
    wrong = [Problem("/config/num_trails", "unknown_parameter", "did you mean num_trials?")]
    node.optimizers.refusal = Invalid("no", code="bad_optimizer_config", problems=wrong)
    refused = await order(client, config={"num_trails": 3})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_optimizer_config")
    assert refused.json()["errors"][0]["pointer"] == "/config/num_trails"


async def test_one_that_completed_is_read_once_and_only_by_those_who_may() -> None:
    node, client = await furnished()
    done = [(await order(client, seed=seed)).json()["id"] for seed in (1, 2)]
    for made, outcome in zip(
        done, (Completed({"score": 0.5}), Failed(JobError("internal", "x", "no"))), strict=True
    ):
        job = node.job_store.rows["default", made]
        begun = rules.begun(job, "n", NOON)
        assert await node.optimizations.change(job, begun)
        assert (await client.get(f"/v1/optimizations/{made}")).json()["status"] == "running"
        assert await node.optimizations.change(begun, rules.settled(begun, outcome, NOON))
    found = await client.get(f"/v1/optimizations/{done[0]}")
    assert found.json()["status"] == "completed"
    await client.get(f"/v1/optimizations/{done[1]}")
    node.switch.away = True
    assert (await client.get(f"/v1/optimizations/{done[0]}")).json() == found.json()
    # What failed may be retried.
    assert (await client.get(f"/v1/optimizations/{done[1]}")).status_code == 503


def test_what_is_kept_of_results_is_bounded() -> None:
    made, _ = optimization(id="a", state="completed", result={"demos": ["x" * 40_000]})
    room = KeptOptimizations(memory_bytes=100_000)
    for number in range(50):
        room.put(replace(made, id=f"{number}"))
    room._kept.run_pending_tasks()
    assert sum(room.get("default", f"{number}") is not None for number in range(50)) <= 2
    room.put(made)


async def test_an_estimate_is_a_range() -> None:
    _, client = await furnished()
    found = (await client.post("/v1/optimizations/estimate", json=ORDER)).json()
    assert found["calls"]["low"] <= found["calls"]["high"]
    assert (found["usd"], found["basis"]) == (None, None)
    assert "price" in found["reason"]


async def test_events_are_told_to_the_end_and_from_where_somebody_was_cut_off() -> None:
    node, client = await furnished()
    made = (await order(client)).json()["id"]
    store = node.optimizations
    job = node.job_store.rows["default", made]
    begun = rules.begun(job, "n", NOON)
    assert await store.change(job, begun)
    told = [Event(n, NOON, {"event": "log", "level": "info", "text": f"line {n}"}) for n in range(1, 451)]
    assert await store.note(begun, Standing(phase="optimizing"), told)
    assert await store.change(begun, rules.settled(begun, Completed({"score": 0.5, "version": 2}), NOON))
    place = f"/v1/optimizations/{made}/events"
    answer = await client.get(place)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.count("event: log\n") == 450
    assert answer.text.count("event: end\n") == 1
    assert answer.text.rstrip().split("event: end")[1].count('"result_version":2') == 1
    rest = await client.get(place, headers={"last-event-id": f"{made}:448"})
    assert rest.text.count("event: log\n") == 2
    beyond = await client.get(place, headers={"last-event-id": f"{made}:{10**15 - 1}"})
    assert beyond.text.count("event: log\n") == 0 and "event: end\n" in beyond.text
    over = await client.get(place, headers={"last-event-id": f"{made}:end"})
    assert (over.status_code, over.text) == (204, "")
    for bad in ("nonsense", f"other:{3}", f"{made}:x"):
        refused = await client.get(place, headers={"last-event-id": bad})
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_last_event_id")


async def test_whoever_saw_the_end_sees_what_follows_when_it_is_begun_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node, client = await furnished()
    made = (await order(client)).json()["id"]
    store = node.optimizations
    begun = rules.begun(node.job_store.rows["default", made], "n", NOON)
    assert await store.change(node.job_store.rows["default", made], begun)
    assert await store.note(begun, Standing(), [Event(1, NOON, {"event": "log", "text": "first"})])
    failed = rules.settled(begun, Failed(JobError("internal", "optimizer_failed", "no")), NOON)
    assert await store.change(begun, failed)
    place, last = f"/v1/optimizations/{made}/events", {"last-event-id": f"{made}:end"}
    assert (await client.get(place, headers=last)).status_code == 204
    assert (await client.post(f"/v1/jobs/{made}/retry", json={})).status_code < 300
    again = rules.begun(node.job_store.rows["default", made], "n", NOON)
    assert await store.change(node.job_store.rows["default", made], again)
    assert await store.note(again, Standing(), [Event(2, NOON, {"event": "log", "text": "second"})])
    read = store.events

    async def read_and_end(*place: Any, **which: Any) -> Any:
        happened = await read(*place, **which)
        done = rules.settled(again, Completed({"score": 0.5, "version": 2}), NOON)
        # Refused the second time: it has ended then.
        await store.change(again, done)
        return happened

    monkeypatch.setattr(store, "events", read_and_end)
    told = await client.get(place, headers=last)
    assert told.status_code == 200 and told.text.count("event: end\n") == 1
    assert "first" in told.text and "second" in told.text


async def test_gates_are_set_shown_and_hold() -> None:
    _, client = await furnished()
    shown = await client.post("/v1/programs/qa/gates", json={"min_score": 0.8})
    assert shown.json()["gates"] == {"min_score": 0.8, "max_cost_usd_per_call": None}
    made = await client.post(
        "/v1/programs/qa/versions", json={"module": "chain_of_thought", "initialize": True}
    )
    assert made.json()["version"] == 2, made.text
    refused = await client.post("/v1/programs/qa/deploy", json={"version": 2})
    assert (refused.status_code, refused.json()["code"]) == (409, "gate_not_met")
    deployed_at_once = await client.post(
        "/v1/programs/qa/versions", json={"temperature": 0.5, "deploy": True}
    )
    assert deployed_at_once.json()["code"] == "gate_not_met"
    absent = await client.post("/v1/programs/qa/deploy", json={"version": 2, "evaluation": "absent"})
    assert absent.status_code == 404
    forced = await client.post("/v1/programs/qa/deploy", json={"version": 2, "force": True})
    assert forced.json()["deployed_version"] == 2
    entries = (await client.get("/v1/audit")).json()["data"]
    deploys = [one for one in entries if one["action"] == "program.deploy"]
    assert deploys[0]["details"] == {"version": 2, "before": 1, "force": True}
    assert {one["outcome"] for one in deploys} == {"failed", "done"}
    assert (await client.post("/v1/programs/qa/gates", json={})).json()["gates"] is None
    for bad in ({"min_score": 2}, {"min_score": -0.1}, {"max_cost_usd_per_call": 0}, {"most": 1}):
        assert (await client.post("/v1/programs/qa/gates", json=bad)).status_code == 422
