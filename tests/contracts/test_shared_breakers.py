"""What nodes tell each other about breakers, over memory and over Redis."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from dspex.gateway.breaker import Breaker
from dspex.gateway.ports import NotShared, SharedBreakers
from dspex.kit.clock import SystemClock
from dspex.providers.memory.breakers import MemoryBreakers
from dspex.providers.redis.breakers import RedisBreakers
from dspex.providers.redis.link import RedisLink
from tests.plugins.service import free_port

OPEN = Breaker(
    "open", 5, until=0.0, number=3, since=datetime(2026, 1, 1, tzinfo=UTC), last_error="lm_server_error"
)


class ClockOfAnotherMachine(SystemClock):
    def monotonic(self) -> float:
        return super().monotonic() + 1e6


@dataclass(frozen=True, slots=True)
class Nodes:
    """Two nodes and their clocks."""

    one: SharedBreakers
    clock: SystemClock
    other: SharedBreakers
    other_clock: SystemClock

    def opened(self, for_s: float = 60.0) -> Breaker:
        return replace(OPEN, until=self.clock.monotonic() + for_s)


@pytest.fixture(params=["memory", "redis"])
def nodes(request: pytest.FixtureRequest) -> Nodes:
    clock = SystemClock()
    if request.param == "memory":
        shared = MemoryBreakers(clock)
        return Nodes(shared, clock, shared, clock)
    link, other_clock = request.getfixturevalue("redis_link"), ClockOfAnotherMachine()
    return Nodes(RedisBreakers(link, clock), clock, RedisBreakers(link, other_clock), other_clock)


async def test_nothing_is_known_of_what_nobody_spoke_of(nodes: Nodes) -> None:
    assert await nodes.one.look(["a", "b"]) == [None, None]


async def test_what_one_says_the_other_hears_on_its_own_clock(nodes: Nodes) -> None:
    said = nodes.opened()
    token = await nodes.one.tell("a", said, instead_of=None, keep_s=60)
    assert token is not None
    nothing, heard = await nodes.other.look(["b", "a"])
    assert nothing is None
    assert heard is not None and heard.token == token
    assert replace(heard.breaker, until=None) == replace(said, until=None)
    assert heard.breaker.until is not None
    assert heard.breaker.until - nodes.other_clock.monotonic() == pytest.approx(60, abs=1)


async def test_what_has_no_end_stays_without(nodes: Nodes) -> None:
    await nodes.one.tell("a", replace(OPEN, until=None), instead_of=None, keep_s=None)
    (heard,) = await nodes.other.look(["a"])
    assert heard is not None and heard.breaker == replace(OPEN, until=None)


async def test_only_who_knows_the_last_word_has_the_next(nodes: Nodes) -> None:
    first = await nodes.one.tell("a", nodes.opened(), instead_of=None, keep_s=60)
    assert await nodes.other.tell("a", Breaker(), instead_of=None, keep_s=60) is None
    assert await nodes.other.tell("a", Breaker(), instead_of="something else", keep_s=60) is None
    second = await nodes.other.tell("a", Breaker(number=9), instead_of=first, keep_s=60)
    assert second not in (None, first)
    assert await nodes.one.tell("a", nodes.opened(), instead_of=first, keep_s=60) is None
    (heard,) = await nodes.one.look(["a"])
    assert heard is not None and (heard.token, heard.breaker.number) == (second, 9)


async def test_nobody_can_follow_a_word_that_was_never_said(nodes: Nodes) -> None:
    assert await nodes.one.tell("a", nodes.opened(), instead_of="made up", keep_s=60) is None
    assert await nodes.one.look(["a"]) == [None]


async def test_of_many_at_once_one_is_heard(nodes: Nodes) -> None:
    told = await asyncio.gather(
        *(
            node.tell("a", nodes.opened(), instead_of=None, keep_s=60)
            for node in [nodes.one, nodes.other] * 10
        )
    )
    assert sum(one is not None for one in told) == 1


async def test_it_is_forgotten_when_nobody_repeats_it(nodes: Nodes) -> None:
    await nodes.one.tell("a", nodes.opened(), instead_of=None, keep_s=0.05)
    await asyncio.sleep(0.1)
    assert await nodes.one.look(["a"]) == [None]
    assert await nodes.one.tell("a", nodes.opened(), instead_of=None, keep_s=60) is not None


async def test_an_end_may_be_taken_off_again(nodes: Nodes) -> None:
    first = await nodes.one.tell("a", nodes.opened(), instead_of=None, keep_s=0.2)
    assert await nodes.one.tell("a", replace(OPEN, until=None), instead_of=first, keep_s=None)
    await asyncio.sleep(0.3)
    assert await nodes.one.look(["a"]) != [None]


GARBAGE = [
    b"",
    b"garbage",
    b"\xff\xfe",
    b"12 token {",
    b'12 token {"state":"ajar"}',
    b'x token {"state":"open"}',
    b'12 token {"last_error":"\xff"}',
    b'12 tok\xffen {"state":"ajar"}',
    b'12 token {"x":' + b"[" * 100_000,
    b'12 token {"failures":-9}',
    b'12 token {"state":"half_open","successes":-9}',
    b'12 token {"number":-9}',
    b'1234567890123456 token {"state":"open"}',
    b'12 token {"state":"open","until":1e400}',
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda one: repr(one[:60]))
async def test_garbage_in_redis_is_nothing_and_is_overwritten(redis_link: RedisLink, garbage: bytes) -> None:
    shared, key = RedisBreakers(redis_link, SystemClock()), redis_link.key("breaker", "a")

    async def write(client: "Redis") -> None:
        await client.set(key, garbage)

    await redis_link.run(write)
    assert await shared.look(["a"]) == [None]
    assert not redis_link.away
    assert await shared.tell("a", OPEN, instead_of=None, keep_s=60) is not None
    assert await shared.look(["a"]) != [None]


async def test_a_clock_of_redis_that_was_set_back_keeps_nobody_out_for_longer(redis_link: RedisLink) -> None:
    clock = SystemClock()
    shared, key = RedisBreakers(redis_link, clock), redis_link.key("breaker", "a")

    async def said_in_an_hour(client: "Redis") -> None:
        seconds, _ = await client.time()
        await client.set(key, f'{(seconds + 3600) * 1000} token {{"state":"open","until":60}}')

    await redis_link.run(said_in_an_hour)
    (heard,) = await shared.look(["a"])
    assert heard is not None and heard.breaker.until is not None
    assert heard.breaker.until - clock.monotonic() <= 60


async def test_another_kind_of_value_is_nothing_and_is_overwritten(redis_link: RedisLink) -> None:
    shared, key = RedisBreakers(redis_link, SystemClock()), redis_link.key("breaker", "a")

    async def write(client: "Redis") -> None:
        await client.lpush(key, "1")  # type: ignore[misc]

    await redis_link.run(write)
    assert await shared.look(["a"]) == [None]
    assert await shared.tell("a", OPEN, instead_of=None, keep_s=60) is not None


async def test_without_redis_nothing_is_shared_and_that_is_said() -> None:
    link = RedisLink(f"redis://127.0.0.1:{free_port()}/0", "x", SystemClock())
    shared = RedisBreakers(link, SystemClock())
    with pytest.raises(NotShared):
        await shared.look(["a"])
    with pytest.raises(NotShared):
        await shared.tell("a", OPEN, instead_of=None, keep_s=60)
    await link.aclose()
