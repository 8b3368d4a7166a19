"""The simulator over a real socket, as an OpenAI-compatible client meets it."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.conftest_simulator import RunningSimulator, simulator, simulator_process
from tests.recorded_prompts import RECORDED

__all__ = ["simulator", "simulator_process"]

PLAIN: dict[str, Any] = RECORDED["plain"][0]


@pytest.fixture
async def http(simulator: RunningSimulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(base_url=f"{simulator.base_url}/") as session:
        yield session


def content(document: dict[str, Any]) -> str:
    text: str = document["choices"][0]["message"]["content"]
    return text


async def chat(http: aiohttp.ClientSession, **more: Any) -> dict[str, Any]:
    async with http.post("chat/completions", json=PLAIN | more) as reply:
        assert reply.status == 200
        document: dict[str, Any] = await reply.json()
    return document


async def test_a_completion_is_marked_as_simulated_and_counted(
    http: aiohttp.ClientSession, simulator: RunningSimulator
) -> None:
    document = await chat(http)
    assert document["simulated"] is True
    assert document["model"] == "gpt-4o-mini"
    assert content(document).endswith("[[ ## completed ## ]]")
    assert document["usage"]["total_tokens"] > document["usage"]["prompt_tokens"] > 0
    assert document == await chat(http) | {"created": document["created"]}
    seen = simulator.control("calls")
    assert seen["calls"] == 2
    assert seen["requests"] == [PLAIN, PLAIN]


async def test_a_stream_gives_the_same_text_and_the_usage_when_asked(http: aiohttp.ClientSession) -> None:
    whole = await chat(http)
    body = PLAIN | {"stream": True, "stream_options": {"include_usage": True}}
    async with http.post("chat/completions", json=body) as reply:
        assert reply.content_type == "text/event-stream"
        lines = [line for line in (await reply.text()).split("\n\n") if line]
    assert lines.pop() == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert all(event["simulated"] for event in events)
    assert events.pop()["usage"] == whole["usage"]
    deltas = [event["choices"][0]["delta"].get("content", "") for event in events]
    assert "".join(deltas) == content(whole)
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


async def test_models_and_embeddings(http: aiohttp.ClientSession) -> None:
    async with http.get("models") as reply:
        assert (await reply.json())["data"][0]["id"] == "simulator"
    body = {"model": "m", "input": ["a refund", "a crash"], "dimensions": 8}
    async with http.post("embeddings", json=body) as reply:
        document = await reply.json()
    vectors = [item["embedding"] for item in document["data"]]
    assert [sum(x * x for x in vector) for vector in vectors] == pytest.approx([1.0, 1.0])
    async with http.post("embeddings", json=body | {"encoding_format": "base64"}) as reply:
        packed = base64.b64decode((await reply.json())["data"][0]["embedding"])
    assert list(struct.unpack("8f", packed)) == pytest.approx(vectors[0])


async def test_a_script_is_obeyed_until_the_reset(
    http: aiohttp.ClientSession, simulator: RunningSimulator
) -> None:
    simulator.control("script", {"rules": [{"contains": "France", "fields": {"answer": "Paris"}}]})
    assert "\nParis\n" in content(await chat(http))
    simulator.control("reset", {})
    assert "\nParis\n" not in content(await chat(http))


@pytest.mark.parametrize(("kind", "status"), [("rate_limit", 429), ("server_error", 500)])
async def test_refusals_carry_status_and_retry_after(
    http: aiohttp.ClientSession, simulator: RunningSimulator, kind: str, status: int
) -> None:
    simulator.control("faults", {"faults": [{"kind": kind, "calls": [0], "retry_after": 1.5}]})
    async with http.post("chat/completions", json=PLAIN) as reply:
        assert reply.status == status
        assert reply.headers["retry-after"] == "1.5"
    await chat(http)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reset_is_a_tcp_reset(simulator: RunningSimulator, stream: bool) -> None:
    simulator.control("faults", {"faults": [{"kind": "reset", "every": 1}]})
    port = int(simulator.base_url.split(":")[2].split("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(PLAIN | {"stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_truncated_reply_ends_early(http: aiohttp.ClientSession, simulator: RunningSimulator) -> None:
    simulator.control("faults", {"faults": [{"kind": "truncated_body", "every": 1}]})
    for stream in (False, True):
        with pytest.raises(aiohttp.ClientPayloadError):
            async with http.post("chat/completions", json=PLAIN | {"stream": stream}) as reply:
                await reply.read()


@pytest.mark.parametrize("kind", ["garbage_body", "malformed_json"])
async def test_garbage_is_complete_but_no_json(
    http: aiohttp.ClientSession, simulator: RunningSimulator, kind: str
) -> None:
    simulator.control("faults", {"faults": [{"kind": kind, "every": 1}]})
    async with http.post("chat/completions", json=PLAIN) as reply:
        assert reply.status == 200
        body = await reply.read()
    with pytest.raises(ValueError, match=r"."):
        json.loads(body)


async def test_a_hang_lasts_until_the_client_gives_up(
    http: aiohttp.ClientSession, simulator: RunningSimulator
) -> None:
    simulator.control("faults", {"faults": [{"kind": "hang", "calls": [0]}]})
    with pytest.raises(TimeoutError):
        async with http.post("chat/completions", json=PLAIN, timeout=aiohttp.ClientTimeout(total=0.2)):
            pass
    await chat(http)


async def test_a_hang_that_ends_closes_the_connection(
    http: aiohttp.ClientSession, simulator: RunningSimulator
) -> None:
    simulator.control("faults", {"faults": [{"kind": "hang", "seconds": 0.01, "calls": [0]}]})
    with pytest.raises(aiohttp.ServerDisconnectedError):
        async with http.post("chat/completions", json=PLAIN):
            pass


async def test_latency_delays_the_reply(http: aiohttp.ClientSession, simulator: RunningSimulator) -> None:
    simulator.control("faults", {"latency": "150ms"})
    started = asyncio.get_running_loop().time()
    await chat(http)
    assert asyncio.get_running_loop().time() - started >= 0.15


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"messages": []}',
        b'{"messages": [1]}',
        b'{"messages": [{"role": [], "content": "x"}]}',
        b'{"messages": [{"role": "user", "content": 5}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "n": 0}',
        b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": "many"}',
        b'{"messages": [{"role": "user", "content": "x"}], "response_format": 1}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}',
    ],
)
async def test_a_bad_request_is_refused(http: aiohttp.ClientSession, body: bytes) -> None:
    async with http.post("chat/completions", data=body) as reply:
        assert reply.status == 400
        document = await reply.json()
    assert document["error"]["message"]
    assert document["simulated"] is True


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/embeddings", {"input": {}}, 400),
        ("/v1/embeddings", {"input": "x", "dimensions": 0}, 400),
        ("/_simulator/script", {"rules": [{}]}, 400),
        ("/_simulator/faults", {"latency": "soon"}, 400),
        ("/_simulator/unknown", {}, 404),
        ("/v1/unknown", {}, 404),
    ],
)
async def test_other_bad_requests(
    http: aiohttp.ClientSession, path: str, body: dict[str, Any], status: int
) -> None:
    async with http.post(path, json=body) as reply:
        assert reply.status == status
        assert (await reply.json())["error"]["code"]
