"""Executions: what a node looks for again and again, and mostly does not find."""

from datetime import datetime

from dspex.storage.later import Deferred, SqlStoresLater
from dspex.storage.sqlite.statements import SqliteStatements

_ORPHAN = """
SELECT 1 FROM executions
WHERE status != 'completed' AND status IN ('pending', 'running')
AND node NOT IN (SELECT node FROM nodes WHERE last_beat >= ?)
AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.project = executions.project AND jobs.id = executions.id
AND jobs.completed_at IS NULL) LIMIT 1
"""
_FINISHED = "SELECT 1 FROM executions WHERE project = ? AND status NOT IN ('pending', 'running')"
_UNUSED_CLAIM = """
SELECT 1 FROM idempotency_claims AS claim WHERE created_at < ? AND NOT EXISTS (
SELECT 1 FROM executions WHERE project = claim.project AND id = claim.execution_id) AND NOT EXISTS (
SELECT 1 FROM jobs WHERE project = claim.project AND id = claim.execution_id) LIMIT 1
"""


class SqliteExecutions(Deferred):
    """`executions.ports.ExecutionStore` on a SQLite file; whoever finds something to do lets SQLAlchemy do it."""

    def __init__(self, statements: SqliteStatements, later: SqlStoresLater) -> None:
        super().__init__(later, "executions")
        self._statements = statements

    async def fail_orphans(self, *, beat_before: datetime, at: datetime, reason: str) -> int:
        if not await self._statements.read(_ORPHAN, beat_before):
            return 0
        stores = await self._later.get()
        return await stores.executions.fail_orphans(beat_before=beat_before, at=at, reason=reason)

    async def prune(
        self, project: str | None, *, older_than: datetime | None, keep_newest: int | None
    ) -> int:
        if not await self._prunable(project, older_than, keep_newest):
            return 0
        stores = await self._later.get()
        return await stores.executions.prune(project, older_than=older_than, keep_newest=keep_newest)

    async def _prunable(
        self, project: str | None, older_than: datetime | None, keep_newest: int | None
    ) -> bool:
        distinct = "SELECT DISTINCT project FROM executions"
        rows = [{"project": project}] if project is not None else await self._statements.read(distinct)
        for row in rows:
            if older_than is not None and await self._statements.read(
                f"{_FINISHED} AND created_at < ? LIMIT 1", row["project"], older_than
            ):
                return True
            if keep_newest is not None and await self._statements.read(
                f"{_FINISHED} LIMIT 1 OFFSET ?", row["project"], keep_newest
            ):
                return True
        return False

    async def prune_claims(self, *, older_than: datetime) -> int:
        if not await self._statements.read(_UNUSED_CLAIM, older_than):
            return 0
        stores = await self._later.get()
        return await stores.executions.prune_claims(older_than=older_than)
