"""Memory over Redis: answers are read from the nearest level, and written to both."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

import structlog
from msgspec.structs import replace

from dspex.gateway.records import CacheEntry, CacheSize
from dspex.providers.memory.cache import MemoryCache
from dspex.providers.redis.cache import RedisCache, Write

log = structlog.get_logger(__name__)
BATCH = 64
MOST_WAITING = 4096
MOST_WAITING_BYTES = 64 * 1024**2
# At the end, what still waits for Redis is given up after this time.
CLOSE_S = 2.0


class TwoLevelCache:
    """`gateway.ports.AnswerCache`.

    Writes to Redis wait in a queue with a bound, so that no answer waits for them. What does not fit, and what was
    queued when Redis went away, is only in memory; `not_shared` counts both.
    """

    def __init__(self, memory: MemoryCache, redis: RedisCache) -> None:
        self._memory = memory
        self._redis = redis
        self._waiting: OrderedDict[tuple[str, str], Write] = OrderedDict()
        self._waiting_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._losing = False
        self.not_shared = 0

    async def generation(self, project: str) -> str:
        return f"{await self._memory.generation(project)}/{await self._redis.generation(project)}"

    async def get(self, project: str, key: str, *, since: float) -> CacheEntry | None:
        found = await self._memory.get(project, key, since=since)
        if found is not None:
            return found
        generation = await self._memory.generation(project)
        found = await self._redis.get(project, key, since=since)
        if found is None:
            # An identical call may have been answered meanwhile.
            return await self._memory.get(project, key, since=since)
        await self._memory.put(project, key, found, generation)
        return found

    async def get_all(self, project: str, keys: Sequence[str], *, since: float) -> list[CacheEntry | None]:
        found = await self._memory.get_all(project, keys, since=since)
        places = [place for place, entry in enumerate(found) if entry is None]
        if places:
            generation = await self._memory.generation(project)
            missing = [keys[place] for place in places]
            far = await self._redis.get_all(project, missing, since=since)
            for place, entry in zip(places, far, strict=True):
                if entry is not None:
                    found[place] = entry
                    await self._memory.put(project, keys[place], entry, generation)
        return found

    async def put(self, project: str, key: str, entry: CacheEntry, generation: str) -> None:
        near, _, far = generation.partition("/")
        await self._memory.put(project, key, entry, near)
        if far:
            self._later(Write(project, key, entry, far))

    async def discard(self, project: str, key: str) -> None:
        await self._memory.discard(project, key)
        self._later(Write(project, key))

    async def clear(self, project: str | None) -> bool:
        await self._memory.clear(project)
        return await self._redis.clear(project)

    def heard(self, project: str | None, *, told: bool) -> None:
        self._memory.heard(project, told=told)
        self._redis.heard(project, told=told)

    def size(self) -> CacheSize:
        return replace(self._memory.size(), redis=self._redis.size().redis)

    async def aclose(self) -> None:
        """Writes what is queued, as far as Redis takes it."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=CLOSE_S)
            if self._writer is not None:
                self._writer.cancel()

    def _later(self, write: Write) -> None:
        """The last write to a key is the one that counts."""
        place = (write.project, write.key)
        if (replaced := self._waiting.pop(place, None)) is not None:
            self._waiting_bytes -= _size(replaced)
        if len(self._waiting) >= MOST_WAITING or self._waiting_bytes + _size(write) > MOST_WAITING_BYTES:
            self._lose(1)
            return
        self._waiting[place] = write
        self._waiting_bytes += _size(write)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popitem(last=False)[1] for _ in range(min(BATCH, len(self._waiting)))]
                self._waiting_bytes -= sum(map(_size, batch))
                if await self._redis.write(batch):
                    self._losing = False
                else:
                    self._lose(len(batch))
        finally:
            self._writer = None

    def _lose(self, count: int) -> None:
        self.not_shared += count
        if not self._losing:
            self._losing = True
            log.warning("answers_not_shared", reason="Redis is away or too slow", answers=count)


def _size(write: Write) -> int:
    return 0 if write.entry is None else len(write.entry.value)
