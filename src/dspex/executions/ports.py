"""What the executions room needs from outside."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from dspex.executions.records import (
    CostLine,
    Execution,
    ExecutionFilter,
    ExecutionStatistics,
    IdempotencyClaim,
)
from dspex.kit.paging import Page


class ExecutionReader(Protocol):
    async def get(self, project: str, execution_id: str) -> Execution | None: ...

    async def list(
        self, project: str, where: ExecutionFilter, *, sort: str, limit: int, cursor: str | None
    ) -> Page[Execution]:
        """`sort` is one of `records.SORTS`; ties are broken by id, so pages never overlap.

        Records come without their `calls`. A page ends early, with a cursor, before the JSON of its records
        would pass `records.PAGE_SIZE` characters; it has one record at least.
        """
        ...

    async def statistics(
        self,
        project: str,
        program: str,
        *,
        version: int | None,
        since: datetime | None,
        until: datetime | None,
    ) -> ExecutionStatistics: ...

    async def costs(
        self, project: str, *, program: str | None, since: datetime | None, until: datetime | None
    ) -> Sequence[CostLine]:
        """By day (UTC), program and model; newest day first, then by program and model."""
        ...


class ExecutionStore(ExecutionReader, Protocol):
    async def save(self, executions: Sequence[Execution]) -> None:
        """Inserts or replaces by id, all in one transaction. Returns after the commit."""
        ...

    async def fail_orphans(self, *, beat_before: datetime, at: datetime, reason: str) -> int:
        """Marks pending and running rows failed whose node is unknown, or last beat before that time.

        Returns how many."""
        ...

    async def prune(
        self, project: str | None, *, older_than: datetime | None, keep_newest: int | None
    ) -> int:
        """Deletes finished rows by age or beyond a count for each project, in batches; returns how many.

        Their claims go with them."""
        ...

    async def prune_claims(self, *, older_than: datetime) -> int:
        """Deletes claims of that age whose execution never came, in batches; returns how many."""
        ...

    async def claim(self, claim: IdempotencyClaim) -> IdempotencyClaim:
        """Stores the claim, or returns the one that was there first. Atomic across nodes."""
        ...

    async def take_over(self, claim: IdempotencyClaim, *, from_execution: str) -> bool:
        """Replaces the claim that is still held for that execution id; False when it is not, any more."""
        ...

    async def release(self, project: str, key: str, *, execution_id: str) -> None:
        """Removes a claim whose execution never came to be."""
        ...


class Nodes(Protocol):
    async def beat(self, node: str, at: datetime) -> None:
        """Records that the node is alive."""
        ...

    async def leave(self, node: str) -> None:
        """A graceful exit: the node's beat is set to the epoch."""
        ...

    async def last_beat(self, node: str) -> datetime | None: ...

    async def forget(self, *, beat_before: datetime) -> int:
        """Deletes nodes that last beat before that time, or left; returns how many.

        A node that is not known counts as dead, as a forgotten one did before.
        """
        ...


class Recorder(Protocol):
    """The way of finished executions into the store."""

    async def record(self, execution: Execution) -> None:
        """Returns once the record is committed. Raises Unavailable when it can't be."""
        ...
