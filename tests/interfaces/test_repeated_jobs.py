"""`Idempotency-Key` of what runs in the background: asked for twice, made once."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from dspex.executions.batches.records import BatchItem
from dspex.kit.errors import Unavailable
from tests.interfaces.keyed import client_with, key_for, keyed_node
from tests.interfaces.node import TestNode, mock_program, until
from tests.unit.programs.compiling import Compiler

KEY = {"idempotency-key": "monday"}
JSON = {"content-type": "application/json"}
LINES = {"content-type": "application/x-ndjson"}
UPLOAD = "/v1/batches?program=qa"
INPUTS = [{"question": f"{n}?"} for n in range(3)]
NDJSON = b"".join(json.dumps(one).encode() + b"\n" for one in INPUTS)
ROWS = [{"inputs": {"question": f"{n}?"}, "outputs": {"answer": f"{n}"}} for n in range(10)]
ORDER = {"program": "qa", "dataset": "rows"}


@pytest.fixture
def node() -> TestNode:
    return TestNode(compiler=Compiler())


@pytest.fixture
async def client(node: TestNode) -> AsyncIterator[httpx.AsyncClient]:
    async with node.client() as client:
        await mock_program(client, "qa", mock={"outputs": {"answer": "yes"}})
        made = await client.post("/v1/datasets", json={"name": "rows", "rows": ROWS})
        assert made.status_code == 201, made.text
        yield client


async def listed(client: httpx.AsyncClient) -> list[str]:
    return [one["id"] for one in (await client.get("/v1/jobs")).json()["data"]]


def items(node: TestNode) -> list[dict[int, BatchItem]]:
    return [found for found in node.batches._items.values() if found]


async def ask(client: httpx.AsyncClient, path: str, body: Any) -> httpx.Response:
    if isinstance(body, bytes):
        return await client.post(path, content=body, headers={**KEY, **LINES})
    return await client.post(path, json=body, headers=KEY)


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        (UPLOAD, NDJSON, NDJSON[:-2] + b" }"),
        ("/v1/batches", {"program": "qa", "inputs": INPUTS}, {"program": "qa", "inputs": INPUTS[:2]}),
        ("/v1/evaluations", {**ORDER, "metric": "exact_match"}, {**ORDER, "metric": "f1"}),
        ("/v1/evaluations", {**ORDER, "metric": "exact_match"}, {**ORDER, "budget_usd": 2}),
    ],
    ids=["lines", "batch", "evaluation", "other evaluation"],
)
async def test_asked_for_twice_it_is_made_once(
    client: httpx.AsyncClient, node: TestNode, path: str, body: Any, other: Any
) -> None:
    first, again = await ask(client, path, body), await ask(client, path, body)
    assert (first.status_code, again.status_code) == (202, 202), first.text
    assert first.content == again.content
    assert first.headers["location"] == again.headers["location"]
    assert "idempotent-replayed" not in first.headers and again.headers["idempotent-replayed"] == "true"
    refused = await ask(client, path, other)
    assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_reused")
    # Nor is it another request's key: of another address, of a prediction.
    for elsewhere, of in (("/v1/batches?program=qa&concurrency=2", NDJSON), ("/v1/programs/qa/predict", {})):
        refused = await ask(client, elsewhere, of or {"inputs": INPUTS[0]})
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_reused")
    assert await listed(client) == [first.json()["id"]]
    assert len(items(node)) == ("batches" in path)


async def test_an_optimization_is_begun_once(client: httpx.AsyncClient) -> None:
    await client.post(
        "/v1/programs", json={"name": "real", "signature": "question -> answer", "deploy": True}
    )
    order = {**ORDER, "program": "real"}
    first, again = [await ask(client, "/v1/optimizations", order) for _ in "12"]
    assert (first.status_code, again.status_code) == (202, 202), first.text
    assert first.json()["id"] == again.json()["id"] and again.headers["idempotent-replayed"] == "true"
    refused = await ask(client, "/v1/optimizations", {**order, "seed": 1})
    assert refused.json()["code"] == "idempotency_key_reused"
    assert await listed(client) == [first.json()["id"]]


async def test_spacing_makes_no_other_document(client: httpx.AsyncClient) -> None:
    body = {"program": "qa", "inputs": INPUTS}
    first = await ask(client, "/v1/batches", body)
    spaced = json.dumps(body, indent=4).encode()
    again = await client.post("/v1/batches", content=spaced, headers={**KEY, **JSON})
    assert again.json() == first.json()


async def test_what_was_made_is_given_back_whatever_became_of_its_program(client: httpx.AsyncClient) -> None:
    first = await ask(client, UPLOAD, NDJSON)
    cancelled = await client.post(f"/v1/batches/{first.json()['id']}/cancel", json={})
    assert (await client.post("/v1/programs/qa/archive", json={})).status_code == 200
    again = await ask(client, UPLOAD, NDJSON)
    assert (again.status_code, again.json()) == (202, cancelled.json())


async def pieces(first: asyncio.Event, rest: asyncio.Event) -> AsyncIterator[bytes]:
    yield NDJSON[:20]
    first.set()
    await rest.wait()
    yield NDJSON[20:]


async def test_while_the_first_is_still_being_sent_the_one_that_is_whole_first_is_the_batch(
    client: httpx.AsyncClient, node: TestNode
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    slow = asyncio.create_task(client.post(UPLOAD, content=pieces(begun, go_on), headers={**KEY, **LINES}))
    await begun.wait()
    second = await ask(client, UPLOAD, NDJSON)
    assert "idempotent-replayed" not in second.headers
    go_on.set()
    first = await slow
    assert first.json() == second.json() and first.headers["idempotent-replayed"] == "true"
    assert await listed(client) == [second.json()["id"]] and len(items(node)) == 1


@pytest.mark.parametrize("broken", [NDJSON + b"no object\n", NDJSON + b'{"question": "' + b"x" * 9_000_000])
async def test_what_is_refused_leaves_its_key_free(
    client: httpx.AsyncClient, node: TestNode, broken: bytes
) -> None:
    assert (await ask(client, UPLOAD, broken)).status_code in (413, 422)
    assert items(node) == []
    assert (await ask(client, UPLOAD, NDJSON)).status_code == 202


async def test_an_upload_that_was_cut_off_leaves_its_key_free(
    client: httpx.AsyncClient, node: TestNode
) -> None:
    async with node.serving() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        fields = {"host": "127.0.0.1", "content-length": "1000000", **KEY, **LINES}
        head = [f"POST {UPLOAD} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        writer.write("\r\n".join(head).encode() + NDJSON * 100)
        await writer.drain()
        await until(lambda: items(node))
        writer.close()
        await until(lambda: not items(node))
    assert await listed(client) == []
    first, again = await ask(client, UPLOAD, NDJSON), await ask(client, UPLOAD, NDJSON)
    assert first.json() == again.json() and first.json()["items"] == 3


async def test_a_batch_whose_commit_was_not_heard_of_keeps_its_items(
    client: httpx.AsyncClient, node: TestNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = node.job_store.add_once

    async def unheard(*given: Any) -> str:
        await add(*given)
        raise Unavailable("The connection broke.", code="database_unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(node.job_store, "add_once", unheard)
        assert (await ask(client, UPLOAD, NDJSON)).status_code == 503
    again = await ask(client, UPLOAD, NDJSON)
    assert again.headers["idempotent-replayed"] == "true"
    (kept,) = items(node)
    assert len(kept) == again.json()["items"] == 3


async def test_a_bad_key_is_told(client: httpx.AsyncClient) -> None:
    for path, body in (("/v1/batches", {"program": "qa", "inputs": INPUTS}), ("/v1/evaluations", ORDER)):
        answer = await client.post(path, json=body, headers={"idempotency-key": "two words"})
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_idempotency_key")


async def test_keys_of_callers_are_their_own() -> None:
    node = keyed_node()
    made = set()
    for role in ("admin", "caller", "caller"):
        async with client_with(node, await key_for(node, role)) as client:
            if role == "admin":
                await mock_program(client, "qa")
            answer = await ask(client, UPLOAD, NDJSON)
            assert answer.status_code == 202 and "idempotent-replayed" not in answer.headers
            made.add(answer.json()["id"])
    assert len(made) == 3


async def test_an_evaluation_that_was_deleted_is_missing_not_made_again(client: httpx.AsyncClient) -> None:
    made = await ask(client, "/v1/evaluations", {**ORDER, "metric": "exact_match"})
    place = made.headers["location"]
    assert (await client.post(f"{place}/cancel", json={})).status_code == 202
    assert (await client.delete(place)).status_code == 200
    again = await ask(client, "/v1/evaluations", {**ORDER, "metric": "exact_match"})
    assert (again.status_code, again.json()["code"]) == (404, "evaluation_missing")
