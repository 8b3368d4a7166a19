"""POST /v1/embeddings: OpenAI's form, what is kept, what is on record, what is refused."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.configuration.settings import Limits, Settings
from dspex.providers.language_models.simulator.embeddings import embed
from dspex.providers.language_models.simulator.faults import FaultRule, Latency
from tests.interfaces.keyed import client_with, key_for, keyed_node
from tests.interfaces.node import TestNode

SETTINGS = Settings(
    log_level="error",
    models=ModelRegistry(
        default="chat",
        registry={
            "chat": ModelSettings(model="simulator/chat"),
            "small": ModelSettings(model="simulator/small", model_type="embedding", retries={"attempts": 1}),
        },
    ),
    limits=Limits(input_bytes=4096, timeout_s=5),
)


@pytest.fixture
def node() -> TestNode:
    return TestNode(SETTINGS)


@pytest.fixture
async def client(node: TestNode) -> AsyncIterator[httpx.AsyncClient]:
    async with node.client() as opened:
        yield opened


async def post(client: httpx.AsyncClient, given: Any, **more: Any) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": "small", "input": given, **more})


def counts(answer: httpx.Response) -> tuple[str, str, str]:
    return tuple(answer.headers[name] for name in ("x-cache", "x-cache-hits", "x-cache-misses"))  # type: ignore[return-value]


async def test_a_text_and_a_list_of_texts_get_vectors_in_openais_form(client: httpx.AsyncClient) -> None:
    answer = await post(client, "a cat")
    assert answer.status_code == 200, answer.text
    document = answer.json()
    (item,) = document.pop("data")
    assert document == {
        "object": "list",
        "model": "small",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
        "cache": {"hits": 0, "misses": 1},
        "cost_usd": None,
        "saved_usd": 0.0,
        "simulated": True,
    }
    assert (item["object"], item["index"]) == ("embedding", 0)
    assert item["embedding"] == pytest.approx(embed("a cat"), rel=1e-6)
    several = (await post(client, ["b", "a cat", "b"], dimensions=8)).json()["data"]
    assert [one["index"] for one in several] == [0, 1, 2]
    assert [len(one["embedding"]) for one in several] == [8, 8, 8]
    assert several[0]["embedding"] == several[2]["embedding"] != several[1]["embedding"]


async def test_base64_has_the_same_numbers(client: httpx.AsyncClient) -> None:
    plain = (await post(client, "x", dimensions=4)).json()["data"][0]["embedding"]
    packed = (await post(client, "x", dimensions=4, encoding_format="base64")).json()["data"][0]["embedding"]
    assert list(struct.unpack("<4f", base64.b64decode(packed))) == plain


async def test_what_was_embedded_is_not_asked_for_again(client: httpx.AsyncClient) -> None:
    assert counts(await post(client, ["a", "b", "a"])) == ("miss", "0", "2")
    assert counts(await post(client, ["b", "c"])) == ("miss", "1", "1")
    kept = await post(client, ["c", "a"])
    assert counts(kept) == ("hit", "2", "0")
    assert kept.json()["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert kept.json()["data"][1]["embedding"] == pytest.approx(embed("a"), rel=1e-6)
    # Other dimensions are other vectors.
    assert counts(await post(client, "a", dimensions=4)) == ("miss", "0", "1")
    assert counts(await post(client, "a", use_cache=False)) == ("off", "0", "1")
    await client.post("/v1/cache/clear")
    assert counts(await post(client, "a")) == ("miss", "0", "1")


async def test_each_request_is_on_record_without_its_texts(client: httpx.AsyncClient) -> None:
    await post(client, "one")
    answer = await post(client, ["one", "other"], dimensions=4)
    found = (await client.get(f"/v1/executions/{answer.headers['x-execution-id']}")).json()
    assert found["program"] == "embeddings"
    assert found["model"] == "small"
    assert found["inputs"] == {"texts": 2, "characters": 8}
    assert found["outputs"] == {"vectors": 2, "dimensions": 4}
    assert found["parameters"] == {"dimensions": 4}
    assert found["usage"] == {"input_tokens": 3, "output_tokens": 0, "total_tokens": 3}
    (call,) = found["trace"]
    assert (call["dialect"], call["texts"], call["cache"]) == ("embeddings", 2, "miss")
    assert "other" not in json.dumps(found)
    (line,) = (await client.get("/costs", params={"group_by": "program"})).json()["data"]
    assert (line["program"], line["executions"], line["input_tokens"]) == ("embeddings", 2, 4)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"input": "x"}, 422, "bad_request"),
        ({"model": "small"}, 422, "bad_request"),
        ({"model": "small", "input": []}, 422, "bad_request"),
        ({"model": "small", "input": ["x"] * 2049}, 422, "bad_request"),
        ({"model": "small", "input": [1, 2, 3]}, 422, "bad_request"),
        ({"model": "small", "input": {"text": "x"}}, 422, "bad_request"),
        ({"model": "small", "input": "x", "encoding_format": "int8"}, 422, "bad_request"),
        ({"model": "small", "input": "x", "dimensions": 0}, 422, "bad_request"),
        ({"model": "small", "input": "x", "dimensions": "8"}, 422, "bad_request"),
        ({"model": "small", "input": "x", "colour": "red"}, 422, "bad_request"),
        ({"model": "small", "input": "x" * 5000}, 413, "inputs_too_large"),
        ({"model": "large", "input": "x"}, 404, "unknown_model"),
        ({"model": "chat", "input": "x"}, 422, "wrong_model_type"),
    ],
)
async def test_bad_requests_are_refused_in_words_that_both_kinds_of_clients_read(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await client.post("/v1/embeddings", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    # What clients of OpenAI's API look for.
    assert problem["error"]["message"] == problem["detail"]
    assert (problem["error"]["type"], problem["error"]["code"]) == ("invalid_request_error", code)
    assert (await client.get("/v1/executions")).json()["data"] == []


async def test_text_without_a_utf8_form_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/embeddings",
        content=b'{"model": "small", "input": "\\ud800"}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]["message"]


async def test_a_model_that_fails_is_a_problem_and_on_record(
    node: TestNode, client: httpx.AsyncClient
) -> None:
    node.embedder.simulator.set_faults((FaultRule(kind="rate_limit", retry_after=7, every=1),))
    answer = await post(client, "x")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (429, "lm_rate_limited")
    assert answer.headers["retry-after"] == "7"
    assert problem["error"]["type"] == "rate_limit_error"
    found = (await client.get(f"/v1/executions/{problem['execution_id']}")).json()
    assert (found["status"], found["error"]["type"]) == ("failed", "LMRateLimitError")
    assert found["outputs"] is None


async def test_who_has_no_key_is_told_so_in_both_forms() -> None:
    node = keyed_node()
    async with node.client() as client:
        answer = await post(client, "x")
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    only_runs = await key_for(node, "caller", scopes=frozenset({"programs:run"}))
    async with client_with(node, only_runs) as client:
        answer = await post(client, "x")
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")


async def test_a_caller_who_goes_away_ends_the_call_and_is_on_record(node: TestNode) -> None:
    node.embedder.simulator.set_latency(Latency(low=60))
    async with node.serving() as port, httpx.AsyncClient() as client:
        asking = asyncio.create_task(
            client.post(
                f"http://127.0.0.1:{port}/v1/embeddings", json={"model": "small", "input": "x"}, timeout=0.5
            )
        )
        with pytest.raises(httpx.ReadTimeout):
            await asking
        listed: list[Any] = []
        async with asyncio.timeout(10):
            while not listed:
                listed = (await client.get(f"http://127.0.0.1:{port}/v1/executions")).json()["data"]
    assert [(one["status"], one["program"]) for one in listed] == [("cancelled", "embeddings")]


async def test_no_model_is_asked_while_nothing_can_be_recorded(
    node: TestNode, client: httpx.AsyncClient
) -> None:
    await post(client, "kept")
    node.switch.away = True
    answer = await post(client, "other")
    assert (answer.status_code, answer.json()["kind"]) == (503, "unavailable")
    assert node.embedder.simulator.counts["embeddings"] == 1


async def test_many_identical_requests_at_once_are_one_call(
    node: TestNode, client: httpx.AsyncClient
) -> None:
    node.embedder.simulator.set_latency(Latency(low=0.1))
    answers = await asyncio.gather(*(post(client, ["a", "b"]) for _ in range(20)))
    assert {one.status_code for one in answers} == {200}
    assert node.embedder.simulator.counts["embeddings"] == 1
    assert sorted(one.headers["x-cache"] for one in answers) == ["hit"] * 19 + ["miss"]
