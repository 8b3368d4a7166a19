"""Jobs, background executions and batches kept in memory, for tests. Nothing awaits inside, so all is atomic."""

import builtins
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from dspex.executions.batches.records import BatchItem, BatchResult
from dspex.executions.records import Execution, ExecutionStatus, IdempotencyClaim
from dspex.jobs.once import Claim, Once, check_body
from dspex.jobs.records import Job, JobCount, JobFilter
from dspex.kit.paging import Page, encode_cursor
from dspex.kit.records import asdict
from dspex.providers.memory.access import place_of
from dspex.providers.memory.executions import MemoryExecutions


class MemoryJobs:
    """A `jobs.ports.JobStore`."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Job] = {}
        self._paused: dict[str, datetime] = {}
        self.claims: dict[tuple[str, str], IdempotencyClaim] = {}

    async def add(self, *jobs: Job) -> None:
        self.rows.update({(job.project, job.id): job for job in jobs})

    async def add_once(self, job: Job, once: Once) -> str:
        before = self.claim_key(job, once)
        if before is None:
            await self.add(job)
        return before or job.id

    def claim_key(self, job: Job, once: Once | None) -> str | None:
        """The id of the job that the key became before; else it becomes this one."""
        if once is None:
            return None
        held = self.claims.get((job.project, once.key))
        if held is not None:
            check_body(held.body_digest, once.digest())
            if (job.project, held.execution_id) in self.rows:
                return held.execution_id
        self.claims[job.project, once.key] = IdempotencyClaim(
            job.project, once.key, once.digest(), job.id, "", job.created_at
        )
        return None

    async def claimed(self, project: str, key: str) -> Claim | None:
        held = self.claims.get((project, key))
        if held is None or (project, held.execution_id) not in self.rows:
            return None
        return Claim(held.body_digest, held.execution_id)

    async def get(self, project: str, job_id: str) -> Job | None:
        return self.rows.get((project, job_id))

    def held(self, job: Job) -> bool:
        """Whether it is as it was begun and nobody has asked for its end."""
        now = self.as_it_was(job)
        return now is not None and not now.cancel_asked

    async def list(self, project: str, where: JobFilter, *, limit: int, cursor: str | None) -> Page[Job]:
        wanted = {name: value for name, value in asdict(where).items() if value is not None}
        found = [
            replace(one, payload={}, result=None)
            for one in self.rows.values()
            if one.project == project and all(getattr(one, name) == value for name, value in wanted.items())
        ]
        found.sort(key=lambda one: (one.created_at, one.id), reverse=True)
        if cursor is not None:
            after = place_of(cursor)
            found = [one for one in found if (one.created_at, one.id) < after]
        page = tuple(found[:limit])
        more = len(found) > limit
        last = page[-1] if more else None
        return Page(page, encode_cursor(last.created_at.isoformat(), last.id) if last else None)

    async def counts(self, project: str | None) -> Sequence[JobCount]:
        counted = Counter(
            (one.kind, one.queue, one.state)
            for one in self.rows.values()
            if project is None or one.project == project
        )
        return [JobCount(*group, jobs=count) for group, count in sorted(counted.items())]

    async def waiting(self, queues: Sequence[str], *, at: datetime, limit: int) -> Sequence[Job]:
        of_queue: defaultdict[str, builtins.list[Job]] = defaultdict(list)
        for one in sorted(self.rows.values(), key=lambda one: (one.priority, one.created_at, one.id)):
            if self._waits(one) and one.queue in queues and one.due_at <= at:
                of_queue[one.queue].append(replace(one, payload={}, result=None))
        return [job for jobs in of_queue.values() for job in jobs[:limit]]

    def _waits(self, job: Job) -> bool:
        return job.state == "queued" and job.queue not in self._paused

    async def next_due(self, *, after: datetime) -> datetime | None:
        due = (one.due_at for one in self.rows.values() if one.state == "queued" and one.due_at > after)
        return min(due, default=None)

    async def overdue(self, *, since: datetime) -> bool:
        return any(self._waits(one) and one.due_at < since for one in self.rows.values())

    async def unfinished(self) -> bool:
        return any(one.completed_at is None for one in self.rows.values())

    async def recorded(self) -> bool:
        return bool(self.rows)

    async def running(self) -> Sequence[Job]:
        return [replace(one, payload={}, result=None) for one in self.rows.values() if one.state == "running"]

    async def change(self, before: Job, after: Job, followers: Sequence[Job] = ()) -> bool:
        stored = self.as_it_was(before)
        if stored is None:
            return False
        self.rows[before.project, before.id] = replace(
            after,
            payload=stored.payload,
            progress=stored.progress,
            cancel_asked=stored.cancel_asked and before.completed_at is None,
        )
        await self.add(*followers)
        return True

    def as_it_was(self, job: Job) -> Job | None:
        """The stored job, if it is in the same turn."""
        stored = self.rows.get((job.project, job.id))
        same = stored is not None and (stored.state, stored.turn, stored.attempts) == (
            job.state,
            job.turn,
            job.attempts,
        )
        return stored if same else None

    async def ask_cancel(self, project: str, job_id: str) -> bool:
        stored = self.rows.get((project, job_id))
        if stored is None or stored.state != "running":
            return False
        self.rows[project, job_id] = replace(stored, cancel_asked=True)
        return True

    async def progress(self, job: Job, progress: Mapping[str, Any]) -> bool:
        stored = self.as_it_was(job)
        if stored is None:
            return False
        self.rows[job.project, job.id] = replace(stored, progress=progress)
        return True

    async def pause(self, queue: str, at: datetime | None) -> None:
        if at is None:
            self._paused.pop(queue, None)
        else:
            self._paused.setdefault(queue, at)

    async def paused(self) -> Mapping[str, datetime]:
        return dict(self._paused)

    async def prune(self, *, completed_before: datetime) -> int:
        old = [
            place
            for place, one in self.rows.items()
            if one.completed_at is not None and one.completed_at < completed_before
        ]
        for place in old:
            del self.rows[place]
        return len(old)


class MemoryBackground:
    """An `executions.background.ports.BackgroundStore`."""

    def __init__(self, jobs: MemoryJobs, executions: MemoryExecutions) -> None:
        self._jobs = jobs
        self._executions = executions
        executions.has_job = self._has_job
        executions.share_claims(jobs.claims, jobs.rows)

    def _has_job(self, project: str, execution_id: str) -> bool:
        job = self._jobs.rows.get((project, execution_id))
        return job is not None and job.completed_at is None

    async def submit(self, job: Job, execution: Execution) -> None:
        await self._jobs.add(job)
        await self._executions.save([execution])

    async def change(
        self, before: Job, after: Job, execution: Execution, followers: Sequence[Job] = ()
    ) -> bool:
        if not await self._jobs.change(before, after, followers):
            return False
        await self._executions.save([execution])
        return True


class MemoryBatches:
    """An `executions.batches.ports.BatchStore`."""

    def __init__(self, jobs: MemoryJobs, executions: MemoryExecutions) -> None:
        self._jobs = jobs
        self._executions = executions
        self._items: defaultdict[tuple[str, str], dict[int, BatchItem]] = defaultdict(dict)

    async def add(self, project: str, batch_id: str, items: Sequence[BatchItem]) -> None:
        self._items[project, batch_id].update({one.position: one for one in items})

    async def drop(self, project: str, batch_id: str) -> None:
        self._items.pop((project, batch_id), None)

    async def open(
        self, project: str, batch_id: str, *, after: int, limit: int
    ) -> Sequence[tuple[BatchItem, ExecutionStatus | None]]:
        found = [one for one in self._behind(project, batch_id, after) if one.state is None][:limit]
        ran = [await self._executions.get(project, one.execution_id) for one in found]
        return [(item, run.status if run else None) for item, run in zip(found, ran, strict=True)]

    def _behind(self, project: str, batch_id: str, after: int) -> list[BatchItem]:
        items = self._items.get((project, batch_id), {})
        return [items[position] for position in sorted(items) if position > after]

    async def settle(self, job: Job, ended: Sequence[BatchItem], progress: Mapping[str, Any]) -> bool:
        if not await self._jobs.progress(job, progress):
            return False
        items = self._items[job.project, job.id]
        for one in ended:
            items[one.position] = replace(items[one.position], state=one.state, error=one.error)
        return True

    async def counts(self, project: str, batch_id: str) -> Mapping[str | None, int]:
        return Counter(one.state for one in self._items.get((project, batch_id), {}).values())

    async def results(self, project: str, batch_id: str, *, after: int, limit: int) -> Sequence[BatchResult]:
        found = self._behind(project, batch_id, after)[:limit]
        return [
            BatchResult(
                one, await self._executions.get(project, one.execution_id) if one.state is not None else None
            )
            for one in found
        ]

    async def prune(self, *, older_than_id: str) -> int:
        abandoned = [
            place for place in self._items if place[1] < older_than_id and place not in self._jobs.rows
        ]
        return sum(len(self._items.pop(place)) for place in abandoned)
