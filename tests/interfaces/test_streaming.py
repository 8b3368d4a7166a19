"""Predictions as server-sent events: what is told, to whom, and how it goes on after a connection broke."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from msgspec.structs import replace

from dspex.configuration.settings import Server, Settings
from dspex.executions import elsewhere, streams
from dspex.executions.streams import MOST_READERS, Streams
from dspex.interfaces.rest import connections
from dspex.interfaces.rest.app import create_application
from dspex.interfaces.rest.events import wanted
from dspex.kit.errors import Unavailable
from tests.interfaces.keyed import client_with, key_for, keyed_node
from tests.interfaces.node import TestNode, mock_program, on_a_socket, until
from tests.streaming import ACCEPT, put_together, read, read_live

PREDICT = "/v1/programs/qa/predict"
ASK = {"inputs": {"question": "?"}}
SIGNATURE = "question -> answer, tags: list[str], note: str | None"
OUTPUTS = {"answer": "It is  Paris.\n", "tags": ["a", "b"], "note": None}


@asynccontextmanager
async def served(node: TestNode) -> AsyncIterator[httpx.AsyncClient]:
    async with node.serving() as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


def node_with(grace_s: float) -> TestNode:
    return TestNode(Settings(log_level="error", server=Server(stream_grace_s=grace_s)))


@pytest.mark.parametrize(
    ("accept", "streamed"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/event-stream", True),
        ("Text/Event-Stream; charset=utf-8", True),
        ("text/event-stream, */*;q=0.5", True),
        ("application/json;q=0.9, text/event-stream", True),
        ("application/json, text/event-stream", False),
        ("text/event-stream;q=0.5, application/*", False),
        ("text/event-stream;q=0", False),
        ("text/event-stream;q=much", False),
        ("text/event-stream-of-mine", False),
    ],
)
def test_events_come_to_those_who_prefer_them(accept: str | None, streamed: bool) -> None:
    assert wanted(accept) is streamed


async def test_events_then_the_body_of_the_plain_answer() -> None:
    node = TestNode()
    async with node.client() as client:
        await mock_program(client, signature=SIGNATURE, mock={"outputs": OUTPUTS})
        plain = (await client.post(PREDICT, json=ASK)).json()
        answer = await client.post(PREDICT, json=ASK, headers=ACCEPT)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        events = list(read(answer.text.split("\n")))
        record = (await client.get(f"/v1/executions/{answer.headers['x-execution-id']}")).json()
    began, *fields, result = events
    assert (began.kind, began.data["execution_id"]) == ("status", answer.headers["x-execution-id"])
    assert [one.kind for one in fields] == ["field", "field"]
    assert put_together(events) == {"answer": "It is  Paris.\n", "tags": '["a","b"]'}
    assert result.kind == "result"
    assert result.data.keys() == plain.keys()
    assert result.data["outputs"] == plain["outputs"] == record["outputs"]
    assert record["status"] == "completed"
    ids = [one.id for one in events]
    assert None not in ids and len(set(ids)) == len(ids)


async def test_post_predict_streams_as_well() -> None:
    async with TestNode().client() as client:
        await mock_program(client)
        answer = await client.post("/v1/predict", json={"program": "qa", **ASK}, headers=ACCEPT)
        assert [one.kind for one in read(answer.text.split("\n"))][-1] == "result"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (PREDICT, {"inputs": {}}, 422, "invalid_inputs"),
        (PREDICT, {"input": 3}, 422, "bad_request"),
        ("/v1/programs/none/predict", ASK, 404, "program_missing"),
        ("/v1/predict", {"signature": "a -> b", "inputs": {"a": "?"}}, 503, "no_compiler"),
    ],
)
async def test_what_fails_before_the_beginning_is_a_plain_problem(
    path: str, body: object, status: int, code: str
) -> None:
    async with TestNode().client() as client:
        await mock_program(client)
        answer = await client.post(path, json=body, headers=ACCEPT)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_what_fails_later_is_an_event_with_the_problem() -> None:
    async with TestNode().client() as client:
        fault = {"rules": [{"fault": {"kind": "exhausted", "retry_after": 7}}]}
        await mock_program(client, mock=fault)
        plain = (await client.post(PREDICT, json=ASK)).json()
        answer = await client.post(PREDICT, json=ASK, headers=ACCEPT)
        assert answer.status_code == 200
        *_, error = read(answer.text.split("\n"))
        assert error.kind == "error"
        assert error.data["execution_id"] == answer.headers["x-execution-id"]
        told = {**error.data, "execution_id": None, "request_id": None}
        assert told == {**plain, "execution_id": None, "request_id": None}


async def test_a_record_that_cannot_be_stored_is_an_event_and_never_stays_running() -> None:
    node = TestNode()
    async with served(node) as client:
        await mock_program(client, mock={"latency_ms": 300})
        async with client.stream("POST", PREDICT, json=ASK, headers=ACCEPT) as answer:
            await until(lambda: node.executions._rows)
            node.switch.away = True
            *_, last = [one async for one in read_live(answer)]
        assert (last.kind, last.data["kind"]) == ("error", "unavailable")


async def test_a_reader_that_leaves_ends_the_execution_after_the_grace() -> None:
    node = node_with(0.2)
    async with served(node) as client:
        await mock_program(client, mock={"latency_ms": 600_000})
        async with client.stream("POST", PREDICT, json=ASK, headers=ACCEPT) as answer:
            execution_id = answer.headers["x-execution-id"]
            (row,) = node.executions._rows.values()
            assert row.status == "running"
        await until(lambda: next(iter(node.executions._rows.values())).status == "cancelled")
        await until(lambda: not node.services.predictions.in_flight)
        late = await client.get(f"/v1/executions/{execution_id}/events")
        *_, last = read(late.text.split("\n"))
        assert (last.kind, last.data["code"]) == ("error", "execution_cancelled")


async def test_a_reader_that_comes_back_in_time_reads_on_where_it_was() -> None:
    node = node_with(5.0)
    async with served(node) as client:
        await mock_program(client, mock={"latency_ms": 700, "outputs": {"answer": "Paris"}})
        async with client.stream("POST", PREDICT, json=ASK, headers=ACCEPT) as answer:
            first = await anext(read_live(answer))
        assert first.id is not None
        back = {**ACCEPT, "last-event-id": first.id}
        for method, path in (
            ("POST", PREDICT),
            ("GET", f"/v1/executions/{answer.headers['x-execution-id']}/events"),
        ):
            body = ASK if method == "POST" else None
            rest = await client.request(method, path, json=body, headers=back)
            assert rest.headers["x-execution-id"] == answer.headers["x-execution-id"]
            assert [one.kind for one in read(rest.text.split("\n"))] == ["field", "result"]
        assert len(node.executions._rows) == 1, "the same POST did not run it again"


async def test_a_text_is_read_on_in_its_middle() -> None:
    async with TestNode().client() as client:
        await mock_program(client, mock={"outputs": {"answer": "Paris é 😀"}})
        answer = await client.post(PREDICT, json=ASK, headers=ACCEPT)
        execution_id = answer.headers["x-execution-id"]
        rest = await client.get(
            f"/v1/executions/{execution_id}/events", headers={"last-event-id": f"{execution_id}:4"}
        )
        assert put_together(read(rest.text.split("\n"))) == {"answer": "is é 😀"}


async def test_after_the_last_event_there_is_nothing() -> None:
    async with TestNode().client() as client:
        await mock_program(client)
        answer = await client.post(PREDICT, json=ASK, headers=ACCEPT)
        *_, last = read(answer.text.split("\n"))
        again = {**ACCEPT, "last-event-id": last.id or ""}
        assert (await client.post(PREDICT, json=ASK, headers=again)).status_code == 204
        place = f"/v1/executions/{answer.headers['x-execution-id']}/events"
        assert (await client.get(place, headers=again)).status_code == 204


@pytest.mark.parametrize("last", ["x", "1", ":", "{id}:", "{id}:-1", "{id}:x", "other:1", "{id}:" + "9" * 40])
async def test_an_id_that_is_none_is_refused(last: str) -> None:
    async with TestNode().client() as client:
        await mock_program(client)
        answer = await client.post(PREDICT, json=ASK, headers=ACCEPT)
        execution_id = answer.headers["x-execution-id"]
        given = {"last-event-id": last.format(id=execution_id)}
        refused = await client.get(f"/v1/executions/{execution_id}/events", headers=given)
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_last_event_id")


@asynccontextmanager
async def two_processes(
    monkeypatch: pytest.MonkeyPatch, latency_ms: int
) -> AsyncIterator[tuple[TestNode, httpx.AsyncClient, httpx.AsyncClient]]:
    """Clients of one that runs executions with a short grace, and of another on the same records and signals."""
    monkeypatch.setattr(streams, "FOLLOWED_S", 0.5)
    monkeypatch.setattr(elsewhere, "LOOK_S", 0.05)
    node = node_with(0.5)
    other = create_application(replace(node.services, streams=Streams(node.services.clock)))
    async with served(node) as client, on_a_socket(other) as port:
        await mock_program(client, mock={"latency_ms": latency_ms, "outputs": {"answer": "Paris"}})
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as there:
            yield node, client, there


async def cut_off(client: httpx.AsyncClient) -> tuple[str, str]:
    """An execution that nobody reads any more, and the id of the one event that was read."""
    async with client.stream("POST", PREDICT, json=ASK, headers=ACCEPT) as answer:
        first = await anext(read_live(answer))
    return answer.headers["x-execution-id"], first.id or ""


async def test_a_reader_that_comes_back_to_another_process_gets_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "KEEP_ALIVE_S", 0.3)
    async with two_processes(monkeypatch, 2000) as (node, client, there):
        execution_id, last = await cut_off(client)
        place, headers = f"/v1/executions/{execution_id}/events", {**ACCEPT, "last-event-id": last}
        followers = (
            there.get(place, headers=headers),
            there.get(place),
            there.post(PREDICT, json=ASK, headers=headers),
        )
        for answer in await asyncio.gather(*followers):
            assert (answer.status_code, answer.headers["x-execution-id"]) == (200, execution_id)
            assert answer.text.startswith("retry: 1000\n\n: keep-alive\n\n")
            (only,) = read(answer.text.split("\n"))
            assert (only.kind, only.data["outputs"]) == ("result", {"answer": "Paris"})
        for late in (await there.get(place, headers=headers), await client.get(place)):
            *_, again = read(late.text.split("\n"))
            assert again == only
        assert node.services.predictions.in_flight == 0
        ended = {**ACCEPT, "last-event-id": only.id or ""}
        assert (await there.get(place, headers=ended)).status_code == 204


async def test_a_reader_that_leaves_another_process_ends_the_execution_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with two_processes(monkeypatch, 600_000) as (node, client, there):
        execution_id, _ = await cut_off(client)
        async with there.stream("GET", f"/v1/executions/{execution_id}/events") as answer:
            assert answer.status_code == 200
            loop = asyncio.get_running_loop()
            followed_until = loop.time() + 1.5
            await until(lambda: loop.time() > followed_until)
            assert node.services.predictions.in_flight == 1
        await until(lambda: next(iter(node.executions._rows.values())).status == "cancelled")
        late = await there.get(f"/v1/executions/{execution_id}/events")
        (last,) = read(late.text.split("\n"))
        assert (last.kind, last.data["code"]) == ("error", "execution_cancelled")


async def test_so_many_executions_of_other_processes_are_followed_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(elsewhere, "MOST_FOLLOWED", 1)
    async with two_processes(monkeypatch, 600_000) as (_, client, there):
        (one, _), (another, _) = await asyncio.gather(cut_off(client), cut_off(client))
        async with there.stream("GET", f"/v1/executions/{one}/events") as answer:
            assert answer.status_code == 200
            refused = await there.get(f"/v1/executions/{another}/events")
            assert (refused.status_code, refused.json()["code"]) == (503, "running_elsewhere")
            assert refused.headers["retry-after"] == "1"


async def test_who_follows_at_another_process_is_told_of_a_record_that_was_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with two_processes(monkeypatch, 600_000) as (node, client, there):
        execution_id, _ = await cut_off(client)
        async with there.stream("GET", f"/v1/executions/{execution_id}/events") as answer:
            node.executions._rows.clear()
            (last,) = [one async for one in read_live(answer)]
        assert (last.kind, last.data["code"]) == ("error", "execution_missing")


async def test_who_follows_at_another_process_waits_for_a_database_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = asyncio.Event()
    async with two_processes(monkeypatch, 2000) as (node, client, there):
        execution_id, _ = await cut_off(client)

        def check() -> None:
            asked.set()
            raise Unavailable("The database does not answer.", code="database_unavailable")

        async with there.stream("GET", f"/v1/executions/{execution_id}/events") as answer:
            with monkeypatch.context() as away:
                away.setattr(node.switch, "check", check)
                async with asyncio.timeout(5):
                    await asked.wait()
            (last,) = [one async for one in read_live(answer)]
        assert last.kind == "result"


async def test_the_same_key_joins_the_stream_that_runs() -> None:
    node = node_with(0.0)
    async with served(node) as client:
        await mock_program(client, mock={"latency_ms": 500, "outputs": {"answer": "Paris"}})
        keyed = {**ACCEPT, "idempotency-key": "k"}
        async with client.stream("POST", PREDICT, json=ASK, headers=keyed) as answer:
            assert "idempotent-replayed" not in answer.headers
        other = await client.post(PREDICT, json={"inputs": {"question": "!"}}, headers=keyed)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
        for _ in range(2):
            again = await client.post(PREDICT, json=ASK, headers=keyed)
            assert again.headers["idempotent-replayed"] == "true"
            assert again.headers["x-execution-id"] == answer.headers["x-execution-id"]
            assert put_together(read(again.text.split("\n"))) == {"answer": "Paris"}
        plain = await client.post(PREDICT, json=ASK, headers={"idempotency-key": "k"})
        assert plain.json()["id"] == answer.headers["x-execution-id"]
        assert len(node.executions._rows) == 1, "it was run to its end, once"


async def test_a_key_that_a_plain_request_used_streams_its_result() -> None:
    async with TestNode().client() as client:
        await mock_program(client)
        plain = await client.post(PREDICT, json=ASK, headers={"idempotency-key": "k"})
        answer = await client.post(PREDICT, json=ASK, headers={**ACCEPT, "idempotency-key": "k"})
        assert answer.headers["idempotent-replayed"] == "true"
        (result,) = read(answer.text.split("\n"))
        assert (result.kind, result.data) == ("result", plain.json())


async def test_a_stream_is_for_those_who_may_read_the_execution() -> None:
    node = keyed_node()
    keys = {role: await key_for(node, role, "ours") for role in ("developer", "caller", "read-only")}
    keys["other caller"] = await key_for(node, "caller", "ours")
    keys["other project"] = await key_for(node, "admin", "theirs")
    async with client_with(node, keys["developer"]) as client:
        await mock_program(client)
    async with client_with(node, keys["caller"]) as client:
        answer = await client.post(PREDICT, json=ASK, headers=ACCEPT)
        assert answer.status_code == 200
    execution_id = answer.headers["x-execution-id"]
    may = {"developer": 200, "caller": 200, "read-only": 200, "other caller": 404, "other project": 404}
    for at_another in (False, True):
        if at_another:
            node.application = create_application(
                replace(node.services, streams=Streams(node.services.clock))
            )
        for who, status in may.items():
            async with client_with(node, keys[who]) as client:
                got = await client.get(f"/v1/executions/{execution_id}/events")
                assert got.status_code == status, who
                resumed = {**ACCEPT, "last-event-id": f"{execution_id}:1"}
                posted = await client.post(PREDICT, json=ASK, headers=resumed)
                expected = {"caller": 200, "read-only": 403}.get(who, 404)
                assert posted.status_code == expected, who


async def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "KEEP_ALIVE_S", 0.1)
    async with served(TestNode()) as client:
        await mock_program(client, mock={"latency_ms": 550})
        answer = await client.post(PREDICT, json=ASK, headers=ACCEPT)
        assert 2 <= answer.text.count(": keep-alive\n\n") <= 6


async def test_so_many_readers_of_one_execution_and_no_more() -> None:
    node = node_with(0.0)
    async with served(node) as client:
        await mock_program(client, mock={"latency_ms": 600_000})
        async with client.stream("POST", PREDICT, json=ASK, headers=ACCEPT) as answer:
            place = f"/v1/executions/{answer.headers['x-execution-id']}/events"
            following = [asyncio.create_task(client.get(place)) for _ in range(MOST_READERS - 1)]
            await until(lambda: node.services.streams.readers == MOST_READERS)
            refused = await client.get(place)
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_readers")
            for one in following:
                one.cancel()
            await asyncio.wait(following)
            await until(lambda: node.services.streams.readers == 1)
        await until(lambda: not node.services.predictions.in_flight)
        assert node.services.streams.readers == 0


async def test_streams_are_counted() -> None:
    async with TestNode().client() as client:
        await mock_program(client)
        await client.post(PREDICT, json=ASK, headers=ACCEPT)
        metrics = (await client.get("/metrics")).text
        assert 'dspex_stream_first_field_seconds_count{program="qa"} 1.0' in metrics
        assert "dspex_open_streams 0.0" in metrics
        assert 'dspy_predictions_total{program="qa",status="success"} 1.0' in metrics
