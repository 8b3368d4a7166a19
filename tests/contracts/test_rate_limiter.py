"""Rate limits, in memory and in Redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from dspex.gateway.ports import RateLimiter
from dspex.gateway.rate_window import Charge, Counter, Refusal, ScopeKind, Unit
from dspex.kit.clock import SystemClock
from dspex.providers.memory.rate_limiter import MemoryRateLimiter
from dspex.providers.redis.link import RedisLink
from dspex.providers.redis.rate_limiter import RedisRateLimiter
from tests.clock import FakeClock


@dataclass(frozen=True, slots=True)
class Backend:
    """`age` makes everything that is counted so many seconds older; a negative age is a clock that went back."""

    limiter: RateLimiter
    age: Callable[[float], Awaitable[None]]
    settled: Callable[[], Awaitable[None]]


class NeverAsked:
    async def reserve(self, charges: Any) -> Any:
        raise AssertionError("Redis is there; nobody else should decide")


@pytest.fixture(params=["memory", "redis"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    if request.param == "memory":
        yield memory()
        return
    url, prefix = (request.getfixturevalue(name) for name in ("redis_url", "redis_prefix"))
    link = RedisLink(url, prefix, SystemClock())
    limiter = RedisRateLimiter(link, NeverAsked())
    yield Backend(limiter, lambda seconds: _age(link, seconds), limiter.aclose)
    await limiter.aclose()
    await link.aclose()


def memory() -> Backend:
    clock = FakeClock()

    async def age(seconds: float) -> None:
        clock.advance(seconds)

    async def settled() -> None:
        return

    return Backend(MemoryRateLimiter(clock), age, settled)


async def _age(link: RedisLink, seconds: float) -> None:
    async def use(redis: Any) -> None:
        async for key in redis.scan_iter(match=f"{link.prefix}:*", count=1000):
            buckets = await redis.hgetall(key)
            await redis.delete(key)
            await redis.hset(key, mapping={int(one) - int(seconds): count for one, count in buckets.items()})

    await link.run(use)


def charge(
    limit: int = 2,
    amount: int = 1,
    *,
    unit: Unit = "requests",
    scope: ScopeKind = "key",
    name: str = "k",
    project: str = "default",
) -> Charge:
    return Charge(Counter(scope, project, name, unit), limit, amount)


async def passes(backend: Backend, *charges: Charge) -> bool:
    return not isinstance(await backend.limiter.reserve(charges), Refusal)


async def test_a_limit_is_reached_and_passes_again_after_a_minute(backend: Backend) -> None:
    assert await passes(backend, charge())
    assert await passes(backend, charge())
    refusal = await backend.limiter.reserve([charge()])
    assert isinstance(refusal, Refusal)
    assert (refusal.charge, refusal.used) == (charge(), 2)
    assert 59 < refusal.retry_after <= 61
    await backend.age(59)
    assert not await passes(backend, charge())
    await backend.age(2)
    assert await passes(backend, charge())


async def test_all_limits_are_charged_or_none(backend: Backend) -> None:
    full, roomy = charge(1, name="full"), charge(1, name="roomy")
    assert await passes(backend, full)
    for _ in range(3):
        refusal = await backend.limiter.reserve([roomy, full])
        assert isinstance(refusal, Refusal)
        assert refusal.charge == full
    assert await passes(backend, roomy)


async def test_the_refusal_that_waits_longest_is_told(backend: Backend) -> None:
    old, new = charge(1, name="old"), charge(1, name="new", scope="program")
    assert await passes(backend, old)
    await backend.age(30)
    assert await passes(backend, new)
    refusal = await backend.limiter.reserve([old, new])
    assert isinstance(refusal, Refusal)
    assert refusal.charge == new


async def test_counters_of_others_are_others(backend: Backend) -> None:
    assert await passes(backend, charge(1))
    for other in (
        charge(1, name="other"),
        charge(1, scope="session"),
        charge(1, unit="tokens"),
        charge(1, project="other"),
        charge(1, project="default:k"),
        charge(1, name="k:\n\x00ü"),
    ):
        assert await passes(backend, other), other
        assert not await passes(backend, other), other


async def test_what_was_not_used_is_given_back(backend: Backend) -> None:
    reservation = await backend.limiter.reserve([charge(), charge(1000, 900, unit="tokens")])
    assert not isinstance(reservation, Refusal)
    assert not await passes(backend, charge(1000, 200, unit="tokens"))
    reservation.settle(requests=0, tokens=100)
    await backend.settled()
    refusal = await backend.limiter.reserve([charge(1000, 901, unit="tokens")])
    assert isinstance(refusal, Refusal)
    assert refusal.used == 100
    assert await passes(backend, charge(1000, 900, unit="tokens"))
    assert await passes(backend, charge())
    assert await passes(backend, charge())
    assert not await passes(backend, charge())


async def test_what_was_used_beyond_the_reservation_counts(backend: Backend) -> None:
    reservation = await backend.limiter.reserve([charge(1000, 10, unit="tokens")])
    assert not isinstance(reservation, Refusal)
    reservation.settle(requests=1, tokens=1500)
    await backend.settled()
    refusal = await backend.limiter.reserve([charge(1000, 1, unit="tokens")])
    assert isinstance(refusal, Refusal)
    assert refusal.used == 1500


async def test_nothing_is_given_back_for_a_call_of_over_a_minute() -> None:
    # In memory only: ageing what Redis has leaves the present second what it is.
    backend = memory()
    reservation = await backend.limiter.reserve([charge(1000, 900, unit="tokens")])
    assert not isinstance(reservation, Refusal)
    await backend.age(61)
    assert await passes(backend, charge(1000, 1000, unit="tokens"))
    reservation.settle(requests=0, tokens=0)
    await backend.settled()
    assert not await passes(backend, charge(1000, 1, unit="tokens"))


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine Redis may take longer than a node waits for it; that is not what is tested here."""
    monkeypatch.setattr("dspex.providers.redis.link.ANSWER_S", 10.0)
    monkeypatch.setattr("dspex.providers.redis.link.CONNECT_S", 10.0)


async def test_of_many_at_once_exactly_as_many_pass_as_the_limit_has(backend: Backend) -> None:
    outcomes = await asyncio.gather(*(passes(backend, charge(50)) for _ in range(200)))
    assert sum(outcomes) == 50


async def test_a_clock_that_goes_back_neither_frees_nor_blocks(redis_link: RedisLink) -> None:
    limiter = RedisRateLimiter(redis_link, NeverAsked())
    backend = Backend(limiter, lambda seconds: _age(redis_link, seconds), limiter.aclose)
    assert await passes(backend, charge(1))
    await backend.age(-3600)
    refusal = await backend.limiter.reserve([charge(1)])
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after <= 61
    await backend.age(61)
    assert await passes(backend, charge(1))


async def test_counters_in_redis_expire(redis_link: RedisLink) -> None:
    limiter = RedisRateLimiter(redis_link, NeverAsked())
    reservation = await limiter.reserve([charge(), charge(10, 1, unit="tokens")])
    assert not isinstance(reservation, Refusal)
    reservation.settle(requests=1, tokens=9)
    await limiter.aclose()

    async def use(redis: Any) -> list[int]:
        return [await redis.ttl(key) async for key in redis.scan_iter(match=f"{redis_link.prefix}:*")]

    lives = await redis_link.run(use)
    assert len(lives) == 2
    assert all(0 < seconds <= 62 for seconds in lives)


@pytest.mark.parametrize(
    "put",
    [
        lambda redis, key: redis.set(key, "garbage"),
        lambda redis, key: redis.rpush(key, "1", "2"),
        lambda redis, key: redis.hset(key, mapping={"x": "y", "inf": "nan", "-1": "1e400", "nan": "3"}),
        lambda redis, key: redis.hset(key, mapping={"99999999999": "-5", b"\xff\x00": b"\xff"}),
    ],
    ids=["text", "list", "words", "numbers"],
)
async def test_garbage_under_a_key_is_no_count(redis_link: RedisLink, put: Any) -> None:
    limiter = RedisRateLimiter(redis_link, NeverAsked())
    key = redis_link.key("rate", "requests", "key", "default", "k")
    await redis_link.run(lambda redis: put(redis, key))
    reservation = await limiter.reserve([charge(1, 1)])
    assert not isinstance(reservation, Refusal)
    await redis_link.run(lambda redis: redis.delete(key))
    await redis_link.run(lambda redis: put(redis, key))
    reservation.settle(requests=0, tokens=0)
    await limiter.aclose()
    assert not redis_link.away


async def test_a_share_of_a_limit_is_at_least_one() -> None:
    limiter = MemoryRateLimiter(FakeClock(), share=0.25)
    backend = Backend(limiter, memory().age, memory().settled)
    assert [await passes(backend, charge(8)) for _ in range(4)] == [True, True, False, False]
    assert [await passes(backend, charge(2, name="small")) for _ in range(2)] == [True, False]
    assert await passes(backend, charge(100, 80, unit="tokens"))


async def test_memory_forgets_idle_counters_and_keeps_busy_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.providers.memory.rate_limiter.COUNTERS", 100)
    clock = FakeClock()
    limiter = MemoryRateLimiter(clock)
    backend = Backend(limiter, memory().age, memory().settled)
    assert await passes(backend, charge(1, name="mine"))
    for number in range(1000):
        # A caller with ever new sessions does not push out his own key's counter.
        assert not await passes(backend, charge(1, name="mine"), charge(1, name=str(number), scope="session"))
        assert len(limiter._windows) <= 101
    clock.advance(120)
    for _ in range(60):
        await passes(backend, charge(5, name="later", scope="program"))
    assert len(limiter._windows) == 1
