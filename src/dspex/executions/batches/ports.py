"""What batches need from outside."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from dspex.executions.batches.records import BatchItem, BatchResult
from dspex.executions.records import ExecutionStatus
from dspex.jobs.records import Job


class BatchStore(Protocol):
    async def add(self, project: str, batch_id: str, items: Sequence[BatchItem]) -> None:
        """All or none, committed on return. The batch itself, a job, comes after its last item."""
        ...

    async def drop(self, project: str, batch_id: str) -> None:
        """Deletes the items of a batch that came to nothing."""
        ...

    async def open(
        self, project: str, batch_id: str, *, after: int, limit: int
    ) -> Sequence[tuple[BatchItem, ExecutionStatus | None]]:
        """Items without a state behind a position, in order, each with the status of its execution if it has one."""
        ...

    async def settle(
        self,
        job: Job,
        ended: Sequence[BatchItem],
        progress: Mapping[str, Any],
    ) -> bool:
        """Writes state and error of items and the job's progress; False, and nothing is written, when the job is

        somebody else's.
        """
        ...

    async def counts(self, project: str, batch_id: str) -> Mapping[str | None, int]:
        """Items by state."""
        ...

    async def results(self, project: str, batch_id: str, *, after: int, limit: int) -> Sequence[BatchResult]:
        """Items behind a position, in order, those that ended with their executions as long as these are kept."""
        ...

    async def prune(self, *, older_than_id: str) -> int:
        """Deletes items without a job whose batch has an id before that one (ids sort by time); returns how many."""
        ...
