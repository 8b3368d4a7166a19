"""Real sockets: what callers do to their connections harms nobody else."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from msgspec.structs import replace
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from dspex.configuration.settings import Limits, Settings
from dspex.executions.telling import Teller
from dspex.interfaces.rest import fastapi_routes
from dspex.interfaces.rest.app import create_application
from dspex.interfaces.rest.connections import Connection
from dspex.interfaces.rest.exchange import WATCH_AFTER_S, CancelOnDisconnect
from dspex.interfaces.rest.fastapi_routes import create_framework
from dspex.interfaces.shared.services import Services
from dspex.kit import collector
from tests.interfaces.node import TestNode, mock_program, until

ASK = b'{"inputs": {"question": "?"}}'


@asynccontextmanager
async def served(node: TestNode) -> AsyncIterator[tuple[httpx.AsyncClient, int]]:
    async with node.serving() as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client, port


def head(path: str, length: int, more: str = "") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\n{more}\r\n"
    ).encode()


async def test_ten_megabytes_are_refused_and_the_connection_lives_on() -> None:
    async with served(TestNode()) as (client, _):
        await mock_program(client)
        for path in ("/v1/programs/qa/predict", "/v1/programs"):
            answer = await client.post(
                path, content=b'"' + b"x" * 10_000_000 + b'"', headers={"content-type": "application/json"}
            )
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        answer = await client.post("/v1/programs/qa/predict", json={"inputs": {"question": "?"}})
        assert answer.status_code == 200


async def test_ten_megabytes_in_chunks_are_refused_as_they_come() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000

    async with served(TestNode()) as (client, _):
        answer = await client.post(
            "/v1/predict", content=chunks(), headers={"content-type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_caller_that_goes_away_ends_its_execution() -> None:
    node = TestNode()
    async with served(node) as (client, port):
        await mock_program(client, mock={"latency_ms": 600_000})
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head("/v1/programs/qa/predict", len(ASK)) + ASK)
        await writer.drain()
        await until(lambda: node.services.predictions.in_flight)
        writer.close()
        await until(lambda: node.executions._rows)
        (execution,) = node.executions._rows.values()
        assert execution.status == "cancelled"
        await until(lambda: not node.services.predictions.in_flight)


async def test_a_request_with_a_key_outlives_its_connection() -> None:
    node = TestNode()
    async with served(node) as (client, port):
        await mock_program(client, mock={"latency_ms": 300})
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head("/v1/programs/qa/predict", len(ASK), "idempotency-key: k\r\n") + ASK)
        await writer.drain()
        await until(lambda: node.services.predictions.in_flight)
        writer.close()
        answer = await client.post(
            "/v1/programs/qa/predict",
            content=ASK,
            headers={"content-type": "application/json", "idempotency-key": "k"},
        )
        assert answer.status_code == 200 and answer.headers["idempotent-replayed"] == "true"
        (execution,) = node.executions._rows.values()
        assert (execution.id, execution.status) == (answer.json()["id"], "completed")


async def test_half_a_body_is_given_up_after_the_time_limit() -> None:
    node = TestNode(Settings(log_level="error", limits=Limits(timeout_s=0.2)))
    async with served(node) as (client, port):
        for path in ("/v1/predict", "/v1/programs"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head(path, len(ASK)) + ASK[:10])
            await writer.drain()
            assert (await client.get("/health")).status_code == 200
            answer = await asyncio.wait_for(reader.readuntil(b"}"), 10)
            assert answer.startswith(b"HTTP/1.1 408 ") and b"body_too_slow" in answer
            writer.close()


async def test_a_body_that_breaks_off_is_nobodys_error() -> None:
    node = TestNode()
    async with served(node) as (client, port):
        await mock_program(client)
        for path in ("/v1/programs/qa/predict", "/v1/programs"):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head(path, len(ASK)) + ASK[:10])
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        answer = await client.post(
            "/v1/programs/qa/predict", content=ASK, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 200
        assert len(node.executions._rows) == 1


async def test_a_slow_header_and_noise_keep_nobody_waiting() -> None:
    async with served(TestNode()) as (client, port):
        _, slow = await asyncio.open_connection("127.0.0.1", port)
        slow.write(b"POST /v1/predict HTTP/1.1\r\nhost: 127")
        await slow.drain()
        reader, noise = await asyncio.open_connection("127.0.0.1", port)
        noise.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        await noise.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        assert (await client.get("/health")).status_code == 200
        slow.close()
        noise.close()


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_what_a_slow_request_was_leaves_with_its_answer(accept: str) -> None:
    """Not with the next look of the garbage collector, which halts everybody."""
    async with served(TestNode()) as (client, _):
        await mock_program(client, mock={"latency_ms": 2 * WATCH_AFTER_S * 1000})

        async def ask() -> None:
            headers = {"content-type": "application/json", "accept": accept}
            answer = await client.post("/v1/programs/qa/predict", content=ASK, headers=headers)
            assert answer.status_code == 200
            await asyncio.sleep(0.01)

        await ask()
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(3):
                await ask()
            gc.collect()
            left = {type(one) for one in gc.garbage}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
        assert not left & {CancelOnDisconnect, Connection, Teller, RequestResponseCycle}


async def test_what_a_reload_replaced_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[FastAPI]] = []

    def noted(services: Services) -> FastAPI:
        framework = create_framework(services)
        made.append(weakref.ref(framework))
        return framework

    monkeypatch.setattr(fastapi_routes, "create_framework", noted)
    node = TestNode()
    for _ in range(2):
        async with node.client() as client:
            assert (await client.get("/ready")).status_code == 200
        node.application = create_application(replace(node.services))
    # As a node does once the last request to the old one is over.
    collector.clear_out()
    assert [framework() is None for framework in made] == [True, False]
