"""Breakers that open for every node on the same Redis."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import json
from msgspec.structs import replace

from dspex.gateway.breaker import Breaker
from dspex.gateway.ports import NotShared, SharedBreaker
from dspex.kit.clock import Clock
from dspex.kit.ids import new_id
from dspex.providers.redis.link import RedisAway, RedisLink

if TYPE_CHECKING:
    from redis.asyncio import Redis

# A value is "<milliseconds on Redis's clock when it was said> <token> <Breaker as JSON>", in which `until` is seconds
# from then on: nodes' clocks differ, Redis's is the same for all. What is not of this form is overwritten.
_TELL = """
local kept = redis.pcall('GET', KEYS[1])
local said, token = string.match(type(kept) == 'string' and kept or '', '^(%d+) ([!-~]+) {')
if not said or #said > 15 then token = '' end
if token ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('SET', KEYS[1], now .. ' ' .. ARGV[2])
if ARGV[3] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
"""
_FORM = re.compile(rb"(\d{1,15}) ([!-~]+) (\{.*)", re.DOTALL)
# Longer than any setting allows.
LONGEST_S = 86_400.0


class RedisBreakers:
    def __init__(self, link: RedisLink, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        # Words that are no node's, to be overwritten.
        self._unreadable: dict[str, str] = {}

    async def look(self, models: Sequence[str]) -> list[SharedBreaker | None]:
        keys = [self._key(model) for model in models]

        async def ask(client: "Redis") -> tuple[float, list[tuple[str, object]]]:
            pipeline = client.pipeline(transaction=False)
            pipeline.time()
            pipeline.mget(keys)
            (seconds, micros), values = await pipeline.execute()
            return seconds * 1000 + micros / 1000, list(zip(models, values, strict=True))

        try:
            now_ms, said = await self._link.run(ask)
        except RedisAway:
            raise NotShared from None
        # Not within the link, which takes whatever fails there for Redis being away.
        return [self._read(model, value, now_ms) for model, value in said]

    async def tell(
        self, model: str, breaker: Breaker, *, instead_of: str | None, keep_s: float | None
    ) -> str | None:
        token, left_s = new_id(), None
        before = instead_of or self._unreadable.get(model, "")
        if breaker.until is not None:
            left_s = breaker.until - self._clock.monotonic()
        value = f"{token} {json.encode(replace(breaker, until=left_s)).decode()}"
        keep_ms = "" if keep_s is None else str(math.ceil(keep_s * 1000))
        try:
            written = await self._link.run(
                lambda client: client.eval(_TELL, 1, self._key(model), before, value, keep_ms)
            )
        except RedisAway:
            raise NotShared from None
        return token if written else None

    def _key(self, model: str) -> str:
        return self._link.key("breaker", model)

    def _read(self, model: str, value: object, now_ms: float) -> SharedBreaker | None:
        self._unreadable.pop(model, None)
        form = _FORM.match(value) if isinstance(value, bytes) else None
        if form is None:
            return None
        said_ms, token, document = int(form[1]), form[2].decode(), form[3]
        breaker = _breaker_in(document)
        if breaker is None:
            self._unreadable[model] = token
            return None
        if breaker.until is not None:
            # Redis's clock may have been set back since.
            left_s = breaker.until - max(now_ms - said_ms, 0.0) / 1000
            breaker = replace(breaker, until=self._clock.monotonic() + left_s)
        return SharedBreaker(token, breaker)


def _breaker_in(document: bytes) -> Breaker | None:
    try:
        breaker = json.decode(document, type=Breaker)
    except (ValueError, RecursionError):
        # What is no text, or nests too deep, is no DecodeError.
        return None
    if min(breaker.failures, breaker.successes, breaker.number) < 0:
        return None
    # Also what is not finite is too long.
    return breaker if breaker.until is None or breaker.until <= LONGEST_S else None
