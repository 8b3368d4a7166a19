"""Stores of which a node prunes again and again, and mostly finds nothing to prune."""

from datetime import datetime

from dspex.storage.later import Deferred, SqlStoresLater
from dspex.storage.sqlite.statements import SqliteStatements

_OLD_ENTRY = "SELECT 1 FROM audit_log WHERE at < ? LIMIT 1"
_JUDGES_NOTHING = """
SELECT 1 FROM feedback AS one WHERE NOT EXISTS (
SELECT 1 FROM executions WHERE project = one.project AND id = one.execution_id) LIMIT 1
"""
_LEFT_OVER = """
SELECT 1 FROM datasets AS one WHERE (version IS NULL AND id < ?) OR (deleted_at IS NOT NULL AND EXISTS (
SELECT 1 FROM dataset_rows WHERE project = one.project AND dataset_id = one.id)) LIMIT 1
"""


class SqliteAudit(Deferred):
    """`access.ports.AuditStore` on a SQLite file."""

    def __init__(self, statements: SqliteStatements, later: SqlStoresLater) -> None:
        super().__init__(later, "audit")
        self._statements = statements

    async def prune(self, *, older_than: datetime) -> int:
        if not await self._statements.read(_OLD_ENTRY, older_than):
            return 0
        return await (await self._later.get()).audit.prune(older_than=older_than)


class SqliteFeedback(Deferred):
    """`executions.feedback.ports.FeedbackStore` on a SQLite file."""

    def __init__(self, statements: SqliteStatements, later: SqlStoresLater) -> None:
        super().__init__(later, "feedback")
        self._statements = statements

    async def prune(self) -> int:
        if not await self._statements.read(_JUDGES_NOTHING):
            return 0
        return await (await self._later.get()).feedback.prune()


class SqliteDatasets(Deferred):
    """`datasets.ports.DatasetStore` on a SQLite file."""

    def __init__(self, statements: SqliteStatements, later: SqlStoresLater) -> None:
        super().__init__(later, "datasets")
        self._statements = statements

    async def prune(self, *, older_than_id: str) -> int:
        if not await self._statements.read(_LEFT_OVER, older_than_id):
            return 0
        return await (await self._later.get()).datasets.prune(older_than_id=older_than_id)
