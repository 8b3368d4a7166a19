"""Answers in this process's memory, kept by W-TinyLFU: what is asked for often stays."""

from collections.abc import Sequence

from moka_py import Moka

from dspex.gateway.records import CacheEntry, CacheSize

# What an entry takes besides its value: key, tuple, bytes object and the cache's own bookkeeping.
OVERHEAD = 400
HEAVIEST = 2**32 - 1


class MemoryCache:
    """`gateway.ports.AnswerCache`, bounded by entries and by bytes."""

    def __init__(self, *, entries: int, memory_bytes: int, ttl_s: float) -> None:
        # The library has one bound, a sum of weights. With a least weight of an equal share, a full sum means
        # neither more entries nor more bytes than allowed.
        share = min(max(memory_bytes // entries, 1), HEAVIEST)
        self._entries: Moka[tuple[str, str, str], tuple[float, bytes]] = Moka(
            share * entries,
            ttl=ttl_s,
            weigher=lambda _, kept: max(share, len(kept[1]) + OVERHEAD),
            eviction_listener=self._gone,
        )
        # Entries and bytes by generation and project, of those that can still be reached.
        self._sizes: dict[tuple[str, str], tuple[int, int]] = {}
        self._cleared = 0
        self._cleared_projects: dict[str, int] = {}

    async def generation(self, project: str) -> str:
        return self._generation(project)

    async def get(self, project: str, key: str, *, since: float) -> CacheEntry | None:
        found = self._entries.get((self._generation(project), project, key))
        return CacheEntry(*found) if found is not None and found[0] >= since else None

    async def get_all(self, project: str, keys: Sequence[str], *, since: float) -> list[CacheEntry | None]:
        return [await self.get(project, key, since=since) for key in keys]

    async def put(self, project: str, key: str, entry: CacheEntry, generation: str) -> None:
        if generation == self._generation(project):
            count, size_bytes = self._sizes.get((generation, project), (0, 0))
            self._sizes[generation, project] = count + 1, size_bytes + len(entry.value) + OVERHEAD
            self._entries.set((generation, project, key), (entry.created_at, entry.value))

    async def discard(self, project: str, key: str) -> None:
        self._entries.remove((self._generation(project), project, key))

    async def clear(self, project: str | None) -> bool:
        self.heard(project, told=True)
        return True

    def heard(self, project: str | None, *, told: bool) -> None:
        if project is None:
            self._cleared += 1
            self._cleared_projects.clear()
            self._sizes.clear()
            self._entries.clear()
        else:
            # Entries of the generation before are out of reach, and go when there is need of room.
            self._sizes.pop((self._generation(project), project), None)
            self._cleared_projects[project] = self._cleared_projects.get(project, 0) + 1

    def size(self) -> CacheSize:
        self._entries.run_pending_tasks()
        counts, sizes = zip(*self._sizes.values(), strict=True) if self._sizes else ((), ())
        return CacheSize(sum(counts), sum(sizes))

    def _generation(self, project: str) -> str:
        return f"{self._cleared}.{self._cleared_projects.get(project, 0)}"

    def _gone(self, place: tuple[str, str, str], kept: tuple[float, bytes], _: str) -> None:
        """Also called for an entry that another took the place of, or that was never let in."""
        generation, project, _key = place
        if (generation, project) not in self._sizes:
            return
        count, size_bytes = self._sizes[generation, project]
        if count == 1:
            del self._sizes[generation, project]
        else:
            self._sizes[generation, project] = count - 1, size_bytes - len(kept[1]) - OVERHEAD
