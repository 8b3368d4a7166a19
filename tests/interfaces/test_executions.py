"""Executions over HTTP: found again by what they were, and shown with what was said to the model."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from dspex.executions.records import IdempotencyClaim
from dspex.providers.compiler import SubprocessCompiler
from tests.interfaces.node import NODE, TestNode, mock_program, until

ASK = {"inputs": {"question": "?"}}
PREDICT = "/v1/programs/qa/predict"


@pytest.fixture
def node() -> TestNode:
    return TestNode()


@pytest.fixture
async def client(node: TestNode) -> Any:
    async with node.client() as client:
        await mock_program(client)
        yield client


async def test_executions_are_found_by_what_they_were(client: httpx.AsyncClient) -> None:
    await mock_program(client, "broken", mock={"rules": [{"fault": {"kind": "unavailable"}}]})
    await client.post(PREDICT, json={**ASK, "session_id": "s1", "request_id": "r1", "metadata": {"a": [1]}})
    await client.post(PREDICT, json=ASK, headers={"x-request-id": "r2"})
    await client.post("/v1/programs/broken/predict", json=ASK)

    async def found(**query: str) -> list[dict[str, Any]]:
        answer = await client.get("/v1/executions", params=query)
        assert answer.status_code == 200, answer.text
        listed: list[dict[str, Any]] = answer.json()["data"]
        return listed

    assert [one["program"] for one in await found()] == ["broken", "qa", "qa"]
    assert [one["program"] for one in await found(sort="created_at")] == ["qa", "qa", "broken"]
    assert [one["error"]["kind"] for one in await found(status="failed")] == ["unavailable"]
    (one,) = await found(session_id="s1")
    assert (one["request_id"], one["metadata"], one["inputs"]) == ("r1", {"a": [1]}, {"question": "?"})
    assert len(await found(request_id="r2")) == 1
    assert len(await found(program="qa", version="1")) == 2
    assert len(await found(since="2020-01-01T00:00:00+02:00")) == 3
    assert await found(until="2020-01-01T00:00:00Z") == []


async def test_pages_do_not_overlap(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await client.post(PREDICT, json=ASK)
    seen, cursor = [], None
    for _ in range(3):
        query = {"limit": "1"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/executions", params=query)).json()
        seen += [one["id"] for one in page["data"]]
        cursor = page["next_cursor"]
    assert cursor is None and len(set(seen)) == 3


async def test_the_same_key_and_body_give_the_same_execution(client: httpx.AsyncClient) -> None:
    key = {"idempotency-key": "order-7"}
    first = await client.post(PREDICT, json=ASK, headers=key)
    again = await client.post(PREDICT, content=b'{ "inputs":{"question":"?"} }', headers={**key, **JSON})
    assert first.content == again.content
    assert "idempotent-replayed" not in first.headers and again.headers["idempotent-replayed"] == "true"
    assert len((await client.get("/v1/executions")).json()["data"]) == 1
    for path, body in ((PREDICT, {"inputs": {"question": "!"}}), ("/v1/predict", {**ASK, "program": "qa"})):
        other = await client.post(path, json=body, headers=key)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")


JSON = {"content-type": "application/json"}


async def test_a_failure_is_given_again_as_it_was(client: httpx.AsyncClient) -> None:
    await mock_program(client, "broken", mock={"rules": [{"fault": {"kind": "timeout"}}]})
    answers = [
        await client.post("/v1/programs/broken/predict", json=ASK, headers={"idempotency-key": "k"})
        for _ in range(2)
    ]
    assert [one.status_code for one in answers] == [504, 504]
    assert answers[0].json()["execution_id"] == answers[1].json()["execution_id"]


async def test_two_at_once_run_once(client: httpx.AsyncClient, node: TestNode) -> None:
    await mock_program(client, "slow", mock={"latency_ms": 30})
    answers = await asyncio.gather(
        *(client.post("/v1/programs/slow/predict", json=ASK, headers={"idempotency-key": "k"}) for _ in "123")
    )
    assert len({one.json()["id"] for one in answers}) == 1
    assert len(node.executions._rows) == 1


async def test_a_refused_request_does_not_use_its_key_up(client: httpx.AsyncClient, node: TestNode) -> None:
    key = {"idempotency-key": "k"}
    refused = await client.post(PREDICT, json={"inputs": {}}, headers=key)
    assert refused.status_code == 422
    assert (await client.post(PREDICT, json=ASK, headers=key)).status_code == 200


async def test_a_record_that_could_not_be_stored_does_not_block_its_key(
    client: httpx.AsyncClient, node: TestNode
) -> None:
    await mock_program(client, "slow", mock={"latency_ms": 20})
    sent = asyncio.create_task(
        client.post("/v1/programs/slow/predict", json=ASK, headers={"idempotency-key": "k"})
    )
    await until(lambda: ("default", "k") in node.executions._claims)
    node.switch.away = True
    assert (await sent).status_code == 503
    node.switch.away = False
    assert ("default", "k") in node.executions._claims, "the claim could not be released either"
    retried = await client.post("/v1/programs/slow/predict", json=ASK, headers={"idempotency-key": "k"})
    assert retried.status_code == 200


@pytest.mark.parametrize(
    ("beat_s_ago", "claimed_s_ago", "status"),
    [(1, 5, 409), (60, 5, 200), (None, 5, 200), (1, 4000, 200)],
    ids=["alive", "dead", "unknown", "alive but far too late"],
)
async def test_a_key_claimed_by_another_node(
    client: httpx.AsyncClient, node: TestNode, beat_s_ago: int | None, claimed_s_ago: int, status: int
) -> None:
    key = {"idempotency-key": "k"}
    await client.post(PREDICT, json=ASK, headers=key)
    claim, now = node.executions._claims["default", "k"], datetime.now(UTC)
    node.executions._rows.clear()
    node.executions._claims["default", "k"] = IdempotencyClaim(
        claim.project,
        "k",
        claim.body_digest,
        claim.execution_id,
        "other",
        now - timedelta(seconds=claimed_s_ago),
    )
    if beat_s_ago is not None:
        node.nodes.beats["other"] = now - timedelta(seconds=beat_s_ago)
    answer = await client.post(PREDICT, json=ASK, headers=key)
    assert answer.status_code == status
    if status == 409:
        assert (answer.json()["code"], answer.headers["retry-after"]) == ("idempotency_in_progress", "1")
    else:
        assert node.executions._claims["default", "k"].node == NODE
        assert node.executions._claims["default", "k"].execution_id == answer.json()["id"]


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256])
async def test_a_key_of_the_wrong_form(client: httpx.AsyncClient, key: str) -> None:
    answer = await client.post(PREDICT, json=ASK, headers={"idempotency-key": key})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_idempotency_key")


async def test_compiled_programs_show_their_messages_and_travel_in_dspys_format() -> None:
    """Real DSPy compiles here, the simulator answers."""
    async with TestNode(compiler=SubprocessCompiler()).client() as client:
        made = await client.post(
            "/v1/programs",
            json={"name": "qa", "signature": "question, day: date -> answer", "deploy": True},
        )
        assert made.json()["status"] == "deployed", made.text
        inputs = {"question": "how?", "day": "2026-01-31"}
        named = await client.post(PREDICT, json={"inputs": inputs, "parameters": {"temperature": 0.3}})
        adhoc = await client.post(
            "/v1/predict", json={"signature": "question, day: date -> answer", "inputs": inputs}
        )
        for answer in (named, adhoc):
            assert answer.status_code == 200 and answer.json()["simulated"], answer.text
            shown = (await client.get(f"/v1/executions/{answer.json()['id']}")).json()
            (call,) = shown["trace"]
            assert [one["role"] for one in call["messages"]] == ["system", "user"]
            assert "how?" in call["messages"][1]["content"] and "2026-01-31" in call["messages"][1]["content"]
            assert call["reply"] and call["latency_ms"] is not None and call["attempt"] == 1
            assert call["options"].get("temperature") == (0.3 if answer is named else None)
        registered = (await client.get("/v1/signatures")).json()["data"]
        assert len(registered) == 1 and registered[0]["status"] == "draft"

        exported = await client.get("/v1/programs/qa/export")
        assert 'filename="qa-v1.json"' in exported.headers["content-disposition"]
        saved = exported.json()
        saved["demos"] = [{"question": "a", "day": "2026-01-01", "answer": "b"}]
        saved["lm"] = {"model": "openai/gpt-4o", "api_base": "http://elsewhere"}
        imported = await client.post("/v1/programs/qa/import", params={"deploy": True}, json=saved)
        assert (imported.status_code, imported.json()["status"]) == (201, "deployed"), imported.text
        assert any("openai/gpt-4o" in note for note in imported.json()["notes"])
        assert imported.json()["state"]["lm"] is None
        compared = (await client.get("/v1/programs/qa/diff", params={"from": 1, "to": 2})).json()
        assert compared["predictors"][0]["demos_added"] == saved["demos"]

        misfit = await client.post("/v1/programs/qa/import", json={"predict": saved})
        assert (misfit.status_code, misfit.json()["code"]) == (422, "bad_state"), misfit.text
        assert "saved state" in misfit.json()["detail"]
