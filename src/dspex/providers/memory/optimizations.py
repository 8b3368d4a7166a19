"""Optimizations and their journals kept in memory, for tests. Nothing awaits inside, so all is atomic."""

import builtins
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from datetime import datetime

from msgspec.structs import replace

from dspex.jobs.once import Once
from dspex.jobs.records import Job, JobState
from dspex.kit.paging import Page, encode_cursor
from dspex.optimizations.records import (
    Counters,
    Ended,
    Event,
    Kept,
    Optimization,
    OptimizationFilter,
    Standing,
    Totals,
)
from dspex.optimizations.rules import most, progress_of, without_state
from dspex.providers.memory.access import place_of
from dspex.providers.memory.jobs import MemoryJobs


class MemoryJournal:
    """An `optimizations.ports.Journal`."""

    def __init__(self) -> None:
        self.kept: defaultdict[tuple[str, str], dict[tuple[str, int], Kept]] = defaultdict(dict)

    async def keep(self, project: str, optimization_id: str, kept: Kept) -> None:
        self.kept[project, optimization_id][kept.digest, kept.ordinal] = kept

    async def places(self, project: str, optimization_id: str) -> Set[tuple[str, int]]:
        return set(self.kept[project, optimization_id])

    async def find(self, project: str, optimization_id: str, digest: str, ordinal: int) -> Kept | None:
        return self.kept[project, optimization_id].get((digest, ordinal))

    async def page(
        self, project: str, optimization_id: str, *, after: tuple[str, int] | None, limit: int
    ) -> Sequence[Kept]:
        found = self.kept[project, optimization_id]
        return [found[place] for place in sorted(found) if after is None or place > after][:limit]

    async def forget_failures(self, project: str, optimization_id: str, kinds: Set[str]) -> None:
        found = self.kept[project, optimization_id]
        for place, kept in list(found.items()):
            if kept.reply.get("error", {}).get("kind") in kinds:
                del found[place]

    async def totals(self, project: str, optimization_id: str) -> Totals:
        found = self.kept[project, optimization_id].values()
        costs = [one.cost_usd for one in found if one.cost_usd is not None]
        return Totals(len(found), round(sum(costs), 12), len(found) - len(costs))


class MemoryOptimizations:
    """An `optimizations.ports.OptimizationStore`."""

    def __init__(self, jobs: MemoryJobs, journal: MemoryJournal) -> None:
        self._jobs = jobs
        self._journal = journal
        self._rows: dict[tuple[str, str], Optimization] = {}
        self._events: defaultdict[tuple[str, str], list[Event]] = defaultdict(list)

    async def add(
        self, optimization: Optimization, job: Job, *, unique: bool = False, once: Once | None = None
    ) -> Optimization:
        same = self._same(optimization.project, optimization.identity) if unique else None
        becomes = job if same is None else replace(job, id=same.id)
        if (before := self._jobs.claim_key(becomes, once)) is not None:
            return self._rows[optimization.project, before]
        if same is not None:
            return same
        await self._jobs.add(job)
        self._rows[optimization.project, optimization.id] = optimization
        return optimization

    async def get(self, project: str, optimization_id: str, *, whole: bool = True) -> Optimization | None:
        found = self._rows.get((project, optimization_id))
        return found if found is None or whole else replace(found, standing=without_state(found.standing))

    async def list(
        self, project: str, where: OptimizationFilter, *, limit: int, cursor: str | None
    ) -> Page[Optimization]:
        found = [
            replace(one, standing=without_state(one.standing))
            for one in self._newest(project)
            if where.program in (None, one.plan.program)
            and where.state in (None, one.state)
            and where.optimizer in (None, one.plan.optimizer)
            and where.author in (None, one.author)
        ]
        if cursor is not None:
            after = place_of(cursor)
            found = [one for one in found if (one.created_at, one.id) < after]
        last = found[limit - 1] if len(found) > limit else None
        return Page(
            tuple(found[:limit]), encode_cursor(last.created_at.isoformat(), last.id) if last else None
        )

    async def ended(self, *, after: tuple[datetime, str] | None, limit: int) -> Sequence[Ended]:
        found = [
            Ended(
                one.project,
                one.id,
                one.plan.optimizer,
                one.state,
                one.started_at,
                one.completed_at,
                (one.result or {}).get("baseline_score"),
                (one.result or {}).get("score"),
            )
            for one in self._rows.values()
            if one.completed_at is not None
        ]
        found.sort(key=lambda one: (one.completed_at, one.id))
        return [one for one in found if after is None or (one.completed_at, one.id) > after][:limit]

    async def count_ended(self, project: str, *, since: datetime, until: datetime) -> Mapping[JobState, int]:
        return Counter(
            one.state
            for one in self._rows.values()
            if one.project == project and one.completed_at is not None and since <= one.completed_at < until
        )

    def _same(self, project: str, identity: str) -> Optimization | None:
        return next(
            (
                one
                for one in self._newest(project)
                if one.identity == identity and one.state not in ("failed", "cancelled")
            ),
            None,
        )

    def _newest(self, project: str) -> "builtins.list[Optimization]":
        found = [one for one in self._rows.values() if one.project == project]
        return sorted(found, key=lambda one: (one.created_at, one.id), reverse=True)

    async def events(self, project: str, optimization_id: str, *, after: int, limit: int) -> Sequence[Event]:
        found = [one for one in self._events[project, optimization_id] if one.number > after]
        return sorted(found, key=lambda one: one.number)[:limit]

    async def last_event(self, project: str, optimization_id: str) -> int:
        return max((one.number for one in self._events[project, optimization_id]), default=0)

    async def change(self, before: Job, after: Job, followers: Sequence[Job] = ()) -> bool:
        if not await self._jobs.change(before, after, followers):
            return False
        place = (after.project, after.id)
        if place in self._rows:
            self._rows[place] = replace(
                self._rows[place],
                state=after.state,
                attempts=after.attempts,
                started_at=after.started_at,
                completed_at=after.completed_at,
                result=after.result,
                error=after.error,
            )
        return True

    async def note(
        self, job: Job, standing: Standing, events: Sequence[Event] = (), *, best: bool = True
    ) -> bool:
        if not await self._jobs.progress(job, progress_of(standing)):
            return False
        place = (job.project, job.id)
        if not best:
            standing = replace(standing, best=self._rows[place].standing.best)
        self._rows[place] = replace(self._rows[place], standing=standing)
        known = {one.number for one in self._events[place]}
        self._events[place] += [one for one in events if one.number not in known]
        return True

    async def spent(self, project: str, optimization_id: str, counters: Counters) -> None:
        one = self._rows.get((project, optimization_id))
        if one is not None:
            standing = replace(one.standing, counters=most(one.standing.counters, counters))
            self._rows[project, optimization_id] = replace(one, standing=standing)

    async def prune(self, *, ended_before: datetime) -> int:
        pruned = 0
        for place, one in self._rows.items():
            if one.completed_at is not None and one.completed_at < ended_before:
                journal = self._journal.kept.pop(place, None)
                events = self._events.pop(place, None)
                pruned += bool(journal or events)
        return pruned
