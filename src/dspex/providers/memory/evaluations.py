"""Evaluations kept in memory, for tests. Nothing awaits inside, so all is atomic."""

import builtins
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from dspex.evaluations.records import (
    Evaluation,
    EvaluationFilter,
    ExampleResult,
    Numbers,
    Pair,
    ResultFilter,
)
from dspex.executions.records import Execution
from dspex.jobs.once import Once
from dspex.jobs.records import Job
from dspex.kit.paging import Page, decode_cursor, encode_cursor
from dspex.kit.records import asdict
from dspex.providers.memory.access import place_of
from dspex.providers.memory.executions import MemoryExecutions
from dspex.providers.memory.jobs import MemoryJobs


class MemoryEvaluations:
    """An `evaluations.ports.EvaluationStore`."""

    def __init__(self, jobs: MemoryJobs, executions: MemoryExecutions) -> None:
        self._jobs = jobs
        self._executions = executions
        self.rows: dict[tuple[str, str], Evaluation] = {}
        self._results: defaultdict[tuple[str, str], dict[int, ExampleResult]] = defaultdict(dict)

    async def get(self, project: str, evaluation_id: str) -> Evaluation | None:
        return self.rows.get((project, evaluation_id))

    async def list(
        self, project: str, where: EvaluationFilter, *, limit: int, cursor: str | None
    ) -> Page[Evaluation]:
        wanted = {name: value for name, value in asdict(where).items() if value is not None}
        found = [
            one
            for one in self.rows.values()
            if one.project == project and all(getattr(one, name) == value for name, value in wanted.items())
        ]
        found.sort(key=lambda one: (one.created_at, one.id), reverse=True)
        if cursor is not None:
            after = place_of(cursor)
            found = [one for one in found if (one.created_at, one.id) < after]
        page = tuple(found[:limit])
        last = page[-1] if len(found) > limit else None
        return Page(page, encode_cursor(last.created_at.isoformat(), last.id) if last else None)

    async def results(
        self, project: str, evaluation_id: str, where: ResultFilter, *, limit: int, cursor: str | None
    ) -> Page[ExampleResult]:
        found = [
            one
            for one in self._of(project, evaluation_id)
            if where.state in (None, one.state) and not (where.order == "score" and one.score is None)
        ]

        def place(one: ExampleResult) -> builtins.list[Any]:
            return [one.score, one.position] if where.order == "score" else [one.position]

        found.sort(key=place)
        if cursor is not None:
            after = decode_cursor(cursor, 2 if where.order == "score" else 1)
            found = [one for one in found if place(one) > after]
        page = tuple(found[:limit])
        return Page(page, encode_cursor(*place(page[-1])) if len(found) > limit else None)

    async def numbers(self, project: str, evaluation_id: str, *, after: int, limit: int) -> Sequence[Numbers]:
        found = [one for one in self._of(project, evaluation_id) if one.position > after]
        return [
            Numbers(
                one.position,
                one.score,
                None if one.failure is None else (one.failure.origin, one.failure.code),
                one.latency_ms,
                one.cost_usd,
                one.metric_cost_usd,
                one.cached,
                one.lm_calls,
                one.tokens,
            )
            for one in found[:limit]
        ]

    async def pairs(
        self, project: str, a: str, b: str, *, changed: bool, after: int, limit: int
    ) -> Sequence[Pair]:
        left, right = self._results[project, a], self._results[project, b]
        found = []
        for position in sorted({*left, *right}):
            one, other = left.get(position), right.get(position)
            known = one or other
            same = (one and one.score) == (other and other.score)
            if position > after and known is not None and not (changed and same):
                found.append(Pair(position, known.row_id, one, other))
        return found[:limit]

    def _of(self, project: str, evaluation_id: str) -> builtins.list[ExampleResult]:
        results = self._results.get((project, evaluation_id), {})
        return [results[position] for position in sorted(results)]

    async def submit(self, job: Job, evaluation: Evaluation, once: Once | None = None) -> str:
        if (before := self._jobs.claim_key(job, once)) is not None:
            return before
        await self._jobs.add(job)
        self.rows[job.project, job.id] = evaluation
        return job.id

    async def change(
        self, before: Job, after: Job, evaluation: Evaluation, followers: Sequence[Job] = ()
    ) -> bool:
        if not await self._jobs.change(before, after, followers):
            return False
        place = (before.project, before.id)
        self.rows[place] = replace(
            self.rows[place],
            status=evaluation.status,
            started_at=evaluation.started_at,
            completed_at=evaluation.completed_at,
            error=evaluation.error,
        )
        if before.completed_at is not None:
            results = self._results[place]
            self._results[place] = {at: one for at, one in results.items() if one.score is not None}
        return True

    async def settle(self, job: Job, results: Sequence[ExampleResult], progress: Mapping[str, Any]) -> bool:
        if not await self._jobs.progress(job, progress):
            return False
        place = (job.project, job.id)
        self.rows[place] = replace(self.rows[place], progress=progress)
        self._results[place].update({one.position: one for one in results})
        return True

    async def report(self, job: Job, result: Mapping[str, Any]) -> bool:
        if self._jobs.as_it_was(job) is None:
            return False
        place = (job.project, job.id)
        self.rows[place] = replace(self.rows[place], result=result)
        return True

    async def executed(self, project: str, execution_ids: Sequence[str]) -> Mapping[str, Execution]:
        found = [await self._executions.get(project, one) for one in execution_ids]
        return {one.id: one for one in found if one is not None}

    async def delete(self, project: str, evaluation_id: str) -> None:
        self._results.pop((project, evaluation_id), None)
        self.rows.pop((project, evaluation_id), None)
