"""Answers that are kept: what every kind of them has in common, whatever keeps them."""

import json as exact
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from dspex.configuration.caching import CacheBounds, CachePolicy
from dspex.gateway.errors import LMError
from dspex.gateway.facts import CacheKind, CacheLooked, CacheOutcome
from dspex.gateway.ports import AnswerCache
from dspex.gateway.records import CacheEntry, CacheLevel, CacheSize
from dspex.kit import json
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError
from dspex.kit.facts import Facts
from dspex.kit.signals import Payload, Signals

CLEARED = "cache.cleared"


class Keepable(Protocol):
    """What is read can run nothing: neither form is a pickle."""

    def to_bytes(self) -> bytes: ...

    @classmethod
    def from_bytes(cls, value: bytes) -> Self | None:
        """None for anything that `to_bytes` did not write: shared caches hold what others put there."""
        ...


A = TypeVar("A", bound=Keepable)


class KeptAsJson(Struct, frozen=True, forbid_unknown_fields=True):
    """For answers that are JSON documents."""

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self))

    @classmethod
    def from_bytes(cls, value: bytes) -> Self | None:
        """None for anything that is not the fields as JSON has them."""
        try:
            return msgspec.convert(_decoded(value), cls)
        except msgspec.ValidationError:
            return None


class Found(Struct, Generic[A], frozen=True):
    """`age_s` is never negative: what is from a clock ahead of ours is new."""

    answer: A
    age_s: float
    level: CacheLevel


class CacheStatistics(Struct, frozen=True):
    """`hits` and `misses` since the node started. A stale answer is no hit; its miss was counted."""

    kind: CacheKind
    size: CacheSize
    hits: int
    misses: int
    stale: int


def unreachable(error: DspexError) -> bool:
    """Whether this is trouble with the model, for which an older answer makes up, not with the request."""
    if error.kind == "exhausted":
        # Other limits are the caller's own.
        return isinstance(error, LMError)
    return error.kind in ("unavailable", "timeout")


class Answers(Generic[A]):
    """One kind of answers."""

    def __init__(
        self,
        kind: CacheKind,
        form: type[A],
        cache: AnswerCache,
        clock: Clock,
        facts: Facts,
        bounds: CacheBounds,
    ) -> None:
        self._kind: CacheKind = kind
        self._form = form
        self.cache = cache
        self._clock = clock
        self._facts = facts
        self._ttl_s = bounds.ttl_s
        self._entry_bytes = bounds.entry_bytes
        self._hits = self._misses = self._stale = 0

    async def look(self, project: str, key: str, policy: CachePolicy) -> Found[A] | None:
        """An answer that is young enough for the policy."""
        found = await self._find(project, key, policy.max_age_s)
        if found is None:
            self._misses += 1
            self._announce(project, "miss", None)
        else:
            self._hits += 1
            self._announce(project, "hit", found.level)
        return found

    async def look_all(self, project: str, keys: Sequence[str]) -> list[Found[A] | None]:
        """`look` for each key, in their order, for answers that are the same at any time: whatever is kept will do."""
        now = self._clock.now().timestamp()
        entries = await self.cache.get_all(project, keys, since=now - self._ttl_s)
        found = [None if entry is None else self._read(entry, now) for entry in entries]
        levels = Counter(one.level for one in found if one is not None)
        for level, count in levels.items():
            self._announce(project, "hit", level, count)
        if misses := len(found) - levels.total():
            self._announce(project, "miss", None, misses)
        self._hits += levels.total()
        self._misses += misses
        return found

    async def look_stale(
        self, project: str, key: str, policy: CachePolicy, error: DspexError
    ) -> Found[A] | None:
        """An older answer, where the policy has one in place of this error."""
        if not (policy.reads and policy.stale_if_error_s and policy.max_age_s is not None):
            return None
        if not unreachable(error):
            return None
        found = await self._find(project, key, policy.max_age_s + policy.stale_if_error_s)
        if found is not None:
            self._stale += 1
            self._announce(project, "stale", found.level)
        return found

    async def keep(self, project: str, key: str, answer: A, generation: str, *, age_s: float = 0.0) -> None:
        """`generation` is that of the time when the answer was begun; too large an answer is not kept."""
        await self.keep_all(project, {key: answer}, generation, age_s=age_s)

    async def keep_all(
        self, project: str, answers: Mapping[str, A], generation: str, *, age_s: float = 0.0
    ) -> None:
        """`keep` for each key."""
        created_at, kept = self._clock.now().timestamp() - age_s, 0
        for key, answer in answers.items():
            value = answer.to_bytes()
            if len(value) <= self._entry_bytes:
                await self.cache.put(project, key, CacheEntry(created_at, value), generation)
                kept += 1
        if kept:
            self._announce(project, "write", None, kept)

    async def discard(self, project: str, keys: Sequence[str]) -> None:
        for key in keys:
            await self.cache.discard(project, key)
            self._announce(project, "discard", None)

    def shared(self, project: str, count: int = 1) -> None:
        """Counts answers that an identical call had on its way: the misses that came before turned out hits."""
        self._hits += count
        self._misses -= count
        self._announce(project, "hit", "flight", count)

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(self._kind, self.cache.size(), self._hits, self._misses, self._stale)

    async def _find(self, project: str, key: str, max_age_s: float | None) -> Found[A] | None:
        now = self._clock.now().timestamp()
        oldest_s = self._ttl_s if max_age_s is None else min(max_age_s, self._ttl_s)
        entry = await self.cache.get(project, key, since=now - oldest_s)
        return None if entry is None else self._read(entry, now)

    def _read(self, entry: CacheEntry, now: float) -> Found[A] | None:
        answer = self._form.from_bytes(entry.value)
        return None if answer is None else Found(answer, max(now - entry.created_at, 0.0), entry.level)

    def _announce(
        self, project: str, outcome: CacheOutcome, level: CacheLevel | None, count: int = 1
    ) -> None:
        self._facts.announce(CacheLooked(self._kind, level, outcome, project, count))


class Caches:
    """Clears and counts all kinds together, on every node."""

    def __init__(self, kinds: Sequence[Answers[Any]], signals: Signals) -> None:
        self._kinds = kinds
        self._signals = signals
        signals.on(CLEARED, self._heard)

    async def clear(self, project: str | None) -> None:
        """Here at once, on other nodes within a second. Raises Unavailable when they can't be told."""
        told = [await one.cache.clear(project) for one in self._kinds]
        everything = {} if project is None else {"project": project}
        await self._signals.send(CLEARED, {"told": "yes" if all(told) else "no", **everything})

    def statistics(self) -> list[CacheStatistics]:
        return [one.statistics() for one in self._kinds]

    def _heard(self, payload: Payload) -> None:
        for one in self._kinds:
            one.cache.heard(payload.get("project"), told=payload["told"] == "yes")


def _decoded(value: bytes) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        # Lone surrogates, which models write and orjson does not read.
        return exact.loads(value)
    except (ValueError, RecursionError):
        return None
