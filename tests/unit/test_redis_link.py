"""The link to a Redis that is away, hangs, or is none."""

import asyncio
from typing import Any

import pytest

from dspex.providers.redis.link import AWAY_S, RedisAway, RedisLink
from tests.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def link(clock: FakeClock) -> RedisLink:
    return RedisLink("redis://127.0.0.1:1/0", "test", clock)


@pytest.mark.parametrize(
    "failure", [TypeError("b'+OK'"), IndexError(), ValueError(), OSError(), TimeoutError()]
)
async def test_whatever_its_client_fails_with_redis_is_away(link: RedisLink, failure: Exception) -> None:
    async def use(_: Any) -> None:
        raise failure

    with pytest.raises(RedisAway):
        await link.run(use)
    assert link.away


async def test_of_those_that_come_when_it_may_be_back_one_tries(link: RedisLink, clock: FakeClock) -> None:
    tried: list[int] = []
    hangs = asyncio.Event()

    async def fails(_: Any) -> None:
        raise OSError

    async def use(_: Any) -> str:
        tried.append(1)
        await hangs.wait()
        return "back"

    with pytest.raises(RedisAway):
        await link.run(fails)
    clock.advance(AWAY_S + 0.1)
    first = asyncio.create_task(link.run(use))
    await asyncio.sleep(0)
    for _ in range(10):
        with pytest.raises(RedisAway):
            await link.run(use)
    assert len(tried) == 1
    hangs.set()
    assert await first == "back"
    assert await asyncio.gather(*(link.run(use) for _ in range(5))) == ["back"] * 5
    await link.aclose()
