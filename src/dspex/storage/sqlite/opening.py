"""A SQLite file as a database, without SQLAlchemy until something asks for more than predictions need."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dspex.configuration.settings import Settings
from dspex.storage.batches import upsert_statement
from dspex.storage.encoding import time_text
from dspex.storage.execution_writer import ExecutionWriter
from dspex.storage.later import Deferred, SqlStoresLater
from dspex.storage.migrations import HEAD, ensure_current
from dspex.storage.opening import Database
from dspex.storage.sqlite.alerts import SqliteAlertBoard
from dspex.storage.sqlite.batch_writer import SqliteBatchWriter
from dspex.storage.sqlite.budgets import SqliteBudgets
from dspex.storage.sqlite.executions import SqliteExecutions
from dspex.storage.sqlite.file import SqliteFile, path_of
from dspex.storage.sqlite.jobs import SqliteJobs
from dspex.storage.sqlite.nodes import SqliteNodes
from dspex.storage.sqlite.programs import SqlitePrograms
from dspex.storage.sqlite.pruning import SqliteAudit, SqliteDatasets, SqliteFeedback
from dspex.storage.sqlite.signals import SqliteSignals
from dspex.storage.sqlite.statements import SqliteStatements
from dspex.storage.stores.execution_rows import COLUMNS, KEY

if TYPE_CHECKING:
    from dspex.storage.sql_stores import SqlStores


@asynccontextmanager
async def open_sqlite(settings: Settings) -> AsyncIterator[Database]:
    """As `open_database`, for an address that `is_sqlite`."""
    durability = settings.storage.durability
    file = SqliteFile(path_of(settings.database), durability)
    await file.prepare()
    statements = SqliteStatements(file)
    later = SqlStoresLater(lambda: _sql_stores(file))
    try:
        if await _revision(statements) != HEAD:
            await ensure_current((await later.get()).sessions)
        upsert = upsert_statement("executions", COLUMNS, KEY, ["?"] * len(COLUMNS))
        yield Database(
            signatures=Deferred(later, "signatures"),
            programs=SqlitePrograms(statements, later),
            executions=SqliteExecutions(statements, later),
            nodes=SqliteNodes(statements, later),
            budgets=SqliteBudgets(statements, later),
            keys=Deferred(later, "keys"),
            audit=SqliteAudit(statements, later),
            jobs=SqliteJobs(statements, later),
            background=Deferred(later, "background"),
            batches=Deferred(later, "batches"),
            evaluations=Deferred(later, "evaluations"),
            optimizations=Deferred(later, "optimizations"),
            journal=Deferred(later, "journal"),
            datasets=SqliteDatasets(statements, later),
            feedback=SqliteFeedback(statements, later),
            signals=SqliteSignals(file, statements),
            recorder=ExecutionWriter(SqliteBatchWriter(file, upsert), time_text, durability),
            ping=statements.ping,
            analytics=Deferred(later, "analytics"),
            alerts=SqliteAlertBoard(statements, later),
            connections=lambda: None,
        )
    finally:
        statements.close()
        await later.close()


def _sql_stores(file: SqliteFile) -> "SqlStores":
    from dspex.storage.dialects.sqlite import SqliteDialect
    from dspex.storage.sql_stores import open_sql_stores

    return open_sql_stores(SqliteDialect(file))


async def _revision(statements: SqliteStatements) -> str | None:
    """The stored revision; None for a database without tables."""
    table = await statements.read("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
    found = await statements.read("SELECT version_num FROM alembic_version") if table else []
    return found[0]["version_num"] if found else None
