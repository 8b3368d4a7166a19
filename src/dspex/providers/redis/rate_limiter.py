"""Rate limits that all nodes share: one script, one round trip, for all limits of a call."""

import asyncio
from collections import deque
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from msgspec import Struct

from dspex.gateway.ports import RateLimiter, Reservation
from dspex.gateway.rate_window import WINDOW_S, Charge, Counter, Refusal
from dspex.providers.redis.link import RedisAway, RedisLink

if TYPE_CHECKING:
    from redis.asyncio import Redis

# Settlements that one script call takes along, and those that may wait; others stay reserved for their minute.
BATCH = 256
SETTLE_AFTER_S = 0.02
QUEUE = 10_000


class RedisRateLimiter:
    """A `gateway.ports.RateLimiter` that lets `local` decide while Redis is away.

    Time is Redis's own, the same for all nodes whatever their clocks say. When that clock goes back, what is counted
    stays so for a minute more; when it leaps, the last minute is forgotten early.
    """

    def __init__(self, link: RedisLink, local: RateLimiter) -> None:
        self._link = link
        self._local = local
        self._scripts: dict[str, Any] = {}
        self._unsettled: deque[tuple[str, int, int]] = deque(maxlen=QUEUE)
        self._settling: asyncio.Task[None] | None = None

    async def reserve(self, charges: Sequence[Charge]) -> Reservation | Refusal:
        keys = [self._key(charge.counter) for charge in charges]
        arguments = [WINDOW_S, *(number for one in charges for number in (one.limit, one.amount))]
        try:
            answer = await self._run("reserve", keys, arguments)
        except RedisAway:
            return await self._local.reserve(charges)
        match answer:
            case [0, int() as second, 0]:
                return RedisReservation(self, tuple(zip(charges, keys, strict=True)), second)
            case [int() as number, int() as used, int() as wait_us] if 0 < number <= len(charges):
                return Refusal(charges[number - 1], used, wait_us / 1e6)
        # Whatever answers there, it has not run the script.
        return await self._local.reserve(charges)

    def settle(self, key: str, second: int, difference: int) -> None:
        """Goes to Redis a moment later, together with others; lost when it is away."""
        self._unsettled.append((key, second, difference))
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle())

    async def aclose(self) -> None:
        """Waits for what is still to be settled."""
        if self._settling is not None:
            await self._settling

    async def _settle(self) -> None:
        # What others settle meanwhile goes along.
        await asyncio.sleep(SETTLE_AFTER_S)
        while self._unsettled:
            batch = [self._unsettled.popleft() for _ in range(min(BATCH, len(self._unsettled)))]
            arguments = [
                WINDOW_S,
                *(number for _, second, difference in batch for number in (second, difference)),
            ]
            try:
                await self._run("settle", [key for key, _, _ in batch], arguments)
            except RedisAway:
                self._unsettled.clear()

    async def _run(self, name: str, keys: Sequence[str], arguments: Sequence[int]) -> Any:
        async def use(redis: "Redis") -> Any:
            script = self._scripts.get(name)
            if script is None:
                text = (files(__package__) / f"rate_{name}.lua").read_text(encoding="utf-8")
                script = self._scripts[name] = redis.register_script(text)
            return await script(keys=keys, args=arguments, client=redis)

        return await self._link.run(use)

    def _key(self, counter: Counter) -> str:
        # Only the last part may contain what it likes: what separates the others must not be in them.
        return self._link.key(
            "rate", counter.unit, counter.scope, quote(counter.project, safe=""), counter.name
        )


class RedisReservation(Struct, frozen=True):
    limiter: RedisRateLimiter
    charges: tuple[tuple[Charge, str], ...]
    second: int

    def settle(self, requests: int, tokens: int) -> None:
        for charge, key in self.charges:
            used = requests if charge.counter.unit == "requests" else tokens
            if used != charge.amount:
                self.limiter.settle(key, self.second, used - charge.amount)
