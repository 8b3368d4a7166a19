"""Redis goes away, comes back, or was never one: limits hold on each process meanwhile, and no call fails for it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dspex.gateway.rate_window import Charge, Counter, Refusal
from dspex.kit.clock import SystemClock
from dspex.providers.memory.rate_limiter import MemoryRateLimiter
from dspex.providers.redis import link as links
from dspex.providers.redis.link import RedisLink
from dspex.providers.redis.rate_limiter import RedisRateLimiter, RedisReservation
from tests.plugins.redis import OwnRedis

CHARGE = Charge(Counter("key", "default", "k", "requests"), 10**6, 1)
TOKENS = Charge(Counter("key", "default", "k", "tokens"), 10**6, 10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnRedis]:
    """Not started yet."""
    redis = OwnRedis(tmp_path)
    yield redis
    redis.kill()


@pytest.fixture
async def link(server: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisLink]:
    monkeypatch.setattr(links, "AWAY_S", 0.1)
    made = RedisLink(server.url, "dspex", SystemClock())
    yield made
    await made.aclose()


async def test_redis_killed_and_restarted_under_load(server: OwnRedis, link: RedisLink) -> None:
    server.start()
    limiter = RedisRateLimiter(link, MemoryRateLimiter(SystemClock()))
    by_redis: list[bool] = []
    slowest = 0.0
    stop = asyncio.Event()

    async def caller() -> None:
        nonlocal slowest
        while not stop.is_set():
            started = time.perf_counter()
            reservation = await limiter.reserve([CHARGE, TOKENS])
            slowest = max(slowest, time.perf_counter() - started)
            assert not isinstance(reservation, Refusal)
            by_redis.append(isinstance(reservation, RedisReservation))
            reservation.settle(requests=1, tokens=3)
            await asyncio.sleep(0)

    async def seen(answer: bool) -> None:
        """Until the last twenty were answered so."""
        async with asyncio.timeout(10):
            while by_redis[-20:] != [answer] * 20:
                await asyncio.sleep(0.01)

    callers = [asyncio.create_task(caller()) for _ in range(20)]
    await seen(True)
    server.kill()
    await seen(False)
    server.start()
    await seen(True)
    stop.set()
    await asyncio.gather(*callers)
    await limiter.aclose()
    assert slowest < 3


async def test_limits_hold_while_redis_is_away(server: OwnRedis, link: RedisLink) -> None:
    limiter = RedisRateLimiter(link, MemoryRateLimiter(SystemClock(), share=0.5))
    two = Charge(CHARGE.counter, 4, 1)
    outcomes = [isinstance(await limiter.reserve([two]), Refusal) for _ in range(4)]
    assert outcomes == [False, False, True, True]


@pytest.mark.parametrize(
    "answer",
    [b"+OK\r\n", b":1\r\n", b"*3\r\n:7\r\n:1\r\n:1\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$-1\r\n"],
)
async def test_what_answers_nonsense_is_no_redis(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "ANSWER_S", 0.2)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65536):
                writer.write(answer)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    link = RedisLink(f"redis://127.0.0.1:{port}/0", "dspex", SystemClock())
    limiter = RedisRateLimiter(link, MemoryRateLimiter(SystemClock()))
    one = Charge(CHARGE.counter, 1, 1)
    first, second = await limiter.reserve([one]), await limiter.reserve([one])
    assert not isinstance(first, Refusal)
    assert isinstance(second, Refusal)
    first.settle(requests=0, tokens=0)
    await limiter.aclose()
    await link.aclose()
    server.close()
    await server.wait_closed()
