"""Feedback kept in memory, for tests and throw-away servers."""

from collections.abc import Sequence

from dspex.executions.feedback.records import ExampleFilter, Feedback
from dspex.executions.records import ExecutionFilter
from dspex.providers.memory.executions import MemoryExecutions


class MemoryFeedback:
    """An `executions.feedback.ports.FeedbackStore`."""

    def __init__(self, executions: MemoryExecutions) -> None:
        self._executions = executions
        self._given: list[Feedback] = []

    async def add(self, feedback: Feedback, *, most: int) -> bool:
        if len(await self.of(feedback.project, [feedback.execution_id])) >= most:
            return False
        self._given.append(feedback)
        return True

    async def of(self, project: str, execution_ids: Sequence[str]) -> Sequence[Feedback]:
        found = [one for one in self._given if one.project == project and one.execution_id in execution_ids]
        return sorted(found, key=lambda one: one.id)

    async def candidates(
        self, project: str, where: ExampleFilter, *, after: str, limit: int
    ) -> Sequence[str]:
        judged = {
            one.execution_id
            for one in self._given
            if one.project == project and (where.only != "corrections" or one.correction is not None)
        }
        found = [
            one.id
            for one in self._executions.matching(
                project,
                ExecutionFilter(
                    program=where.program, version=where.version, since=where.since, until=where.until
                ),
            )
            if one.id > after
            and one.status in ("completed", "failed", "cancelled")
            and (where.only == "all" or one.id in judged)
        ]
        return sorted(found)[:limit]

    async def prune(self) -> int:
        kept = [one for one in self._given if await self._executions.get(one.project, one.execution_id)]
        deleted = len(self._given) - len(kept)
        self._given = kept
        return deleted
