"""Answers in Redis, shared by all nodes. Redis away: nothing is found and nothing kept."""

import math
import secrets
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from dspex.gateway.records import CacheEntry, CacheSize
from dspex.providers.redis.link import RedisAway, RedisLink

if TYPE_CHECKING:
    from redis.asyncio import Redis

# Two marks, then the time as a double, then the value.
_MARK = 16
_TIME = struct.Struct("<d")
_HEAD = 2 * _MARK + _TIME.size
EVERYTHING = ""
# So that an answer of Redis is some megabytes at most, and others have their turn between.
READ_AT_ONCE = 256


class Write(Struct, frozen=True):
    """`entry` is None for one to be discarded."""

    project: str
    key: str
    entry: CacheEntry | None = None
    generation: str = ""


class RedisCache:
    """`gateway.ports.AnswerCache`.

    A generation is two marks that lie in Redis, one for everything and one for the project. They are read with each
    entry and must be the ones that it was written under; clearing sets another one. They are random: where Redis
    drops one to make room, what was written under it stays out of reach.
    """

    def __init__(self, link: RedisLink, kind: str, *, ttl_s: float) -> None:
        self._link = link
        self._kind = kind
        self._ttl_ms = math.ceil(ttl_s * 1000)
        self._known: dict[str, str] = {}
        # Cleared while Redis was away; it still has the old marks.
        self._owed: set[str] = set()

    async def generation(self, project: str) -> str:
        """Empty while Redis is away; nothing can be kept then."""
        if project not in self._known:
            try:
                await self._learn(project)
            except RedisAway:
                return ""
        return self._known.get(project, "")

    async def get(self, project: str, key: str, *, since: float) -> CacheEntry | None:
        return (await self._read(project, [key], since))[0]

    async def get_all(self, project: str, keys: Sequence[str], *, since: float) -> list[CacheEntry | None]:
        found: list[CacheEntry | None] = []
        for start in range(0, len(keys), READ_AT_ONCE):
            found += await self._read(project, keys[start : start + READ_AT_ONCE], since)
        return found

    async def _read(self, project: str, keys: Sequence[str], since: float) -> list[CacheEntry | None]:
        nothing: list[CacheEntry | None] = [None] * len(keys)
        try:
            await self._pay()
            names = [
                self._mark(EVERYTHING),
                self._mark(project),
                *(self._entry(project, key) for key in keys),
            ]
            everything, own, *raw = await self._link.run(lambda redis: _values(redis, names))
            if everything is None or own is None or not (_is_mark(everything) and _is_mark(own)):
                await self._learn(project)
                return nothing
        except RedisAway:
            return nothing
        generation = everything + own
        self._known[project] = generation.decode("latin-1")
        return [_entry(one, generation, since) for one in raw]

    async def put(self, project: str, key: str, entry: CacheEntry, generation: str) -> None:
        await self.write([Write(project, key, entry, generation)])

    async def discard(self, project: str, key: str) -> None:
        await self.write([Write(project, key)])

    async def write(self, writes: Sequence[Write]) -> bool:
        """All in one round trip; False when Redis is away."""

        async def pipelined(redis: "Redis") -> None:
            async with redis.pipeline(transaction=False) as pipe:
                for one in writes:
                    name = self._entry(one.project, one.key)
                    if one.entry is None:
                        pipe.delete(name)
                    elif one.generation:
                        head = one.generation.encode("latin-1") + _TIME.pack(one.entry.created_at)
                        pipe.set(name, head + one.entry.value, px=self._ttl_ms)
                await pipe.execute()

        try:
            await self._pay()
            await self._link.run(pipelined)
        except RedisAway:
            return False
        return True

    async def clear(self, project: str | None) -> bool:
        self.heard(project, told=False)
        try:
            await self._pay()
        except RedisAway:
            return False
        return True

    def heard(self, project: str | None, *, told: bool) -> None:
        if project is None:
            self._known.clear()
        else:
            self._known.pop(project, None)
        if not told:
            self._owed.add(EVERYTHING if project is None else project)

    def size(self) -> CacheSize:
        """What lies in Redis is not counted: it may be shared with others, and large."""
        return CacheSize(0, 0, "away" if self._link.away else "ok")

    async def _pay(self) -> None:
        for project in tuple(self._owed):
            mark = self._mark(project)
            await self._link.run(lambda redis, mark=mark: redis.set(mark, _new_mark()))  # type: ignore[misc]
            self._owed.discard(project)

    async def _learn(self, project: str) -> None:
        """Reads the marks, and makes those that are missing."""
        await self._pay()
        names = [self._mark(EVERYTHING), self._mark(project)]

        async def made(redis: "Redis") -> list[bytes | None]:
            async with redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.set(name, _new_mark(), nx=True)
                pipe.mget(names)
                return _checked((await pipe.execute())[-1], names)

        everything, own = await self._link.run(made)
        if everything is not None and own is not None and _is_mark(everything) and _is_mark(own):
            self._known[project] = (everything + own).decode("latin-1")
        else:
            # Somebody else wrote there.
            self._owed |= {EVERYTHING, project}

    def _mark(self, project: str) -> str:
        return self._link.key("cache", self._kind, "mark", project)

    def _entry(self, project: str, key: str) -> str:
        return self._link.key("cache", self._kind, "entry", project, key)


def _entry(raw: bytes | None, generation: bytes, since: float) -> CacheEntry | None:
    if raw is None or len(raw) < _HEAD or not raw.startswith(generation):
        return None
    (created_at,) = _TIME.unpack(raw[2 * _MARK : _HEAD])
    # Garbage may be no number, which is neither older nor younger.
    return CacheEntry(created_at, raw[_HEAD:], "redis") if created_at >= since else None


async def _values(redis: "Redis", names: Sequence[str]) -> list[bytes | None]:
    return _checked(await redis.mget(names), names)


def _checked(found: Any, names: Sequence[str]) -> list[bytes | None]:
    """Raises TypeError for an answer that is none to this question."""
    if (
        isinstance(found, list)
        and len(found) == len(names)
        and all(one is None or isinstance(one, bytes) for one in found)
    ):
        return found
    raise TypeError(f"not {len(names)} values: {found!r:.100}")


def _is_mark(found: bytes | None) -> bool:
    return found is not None and len(found) == _MARK


def _new_mark() -> str:
    return secrets.token_hex(_MARK // 2)
