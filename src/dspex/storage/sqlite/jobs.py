"""Jobs: what a node asks again and again, and mostly finds nothing."""

from datetime import datetime

from dspex.storage.later import Deferred, SqlStoresLater
from dspex.storage.sqlite.statements import SqliteStatements

_UNFINISHED = "SELECT 1 FROM jobs WHERE completed_at IS NULL LIMIT 1"
_RECORDED = "SELECT 1 FROM jobs LIMIT 1"
_OVERDUE = """
SELECT 1 FROM jobs WHERE completed_at IS NULL AND state = 'queued' AND due_at < ?
AND queue NOT IN (SELECT queue FROM paused_queues) LIMIT 1
"""


class SqliteJobs(Deferred):
    """`jobs.ports.JobStore` on a SQLite file."""

    def __init__(self, statements: SqliteStatements, later: SqlStoresLater) -> None:
        super().__init__(later, "jobs")
        self._statements = statements

    async def unfinished(self) -> bool:
        return bool(await self._statements.read(_UNFINISHED))

    async def recorded(self) -> bool:
        return bool(await self._statements.read(_RECORDED))

    async def overdue(self, *, since: datetime) -> bool:
        return bool(await self._statements.read(_OVERDUE, since))
