"""One open database: the stores over it and the way records take into it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from dspex.access.ports import AuditStore, KeyStore
from dspex.configuration.settings import Settings
from dspex.executions.ports import ExecutionAnalytics, ExecutionStore, Nodes
from dspex.gateway.ports import BudgetLedger
from dspex.jobs.ports import JobStore
from dspex.observability.ports import AlertBoard
from dspex.programs.ports import ProgramStore
from dspex.signatures.ports import SignatureStore
from dspex.storage.execution_writer import ExecutionWriter
from dspex.storage.migrations import ensure_current
from dspex.storage.signals import SignalStore
from dspex.storage.sqlite.file import is_sqlite

if TYPE_CHECKING:
    from dspex.datasets.ports import DatasetStore
    from dspex.evaluations.ports import EvaluationStore
    from dspex.executions.background.ports import BackgroundStore
    from dspex.executions.batches.ports import BatchStore
    from dspex.executions.feedback.ports import FeedbackStore
    from dspex.optimizations.ports import Journal, OptimizationStore


class Database(Struct, frozen=True):
    """`ping` raises Unavailable while the database does not answer.

    `connections` of the pool: in use, idle, and how many there may be; None for a file.
    """

    signatures: SignatureStore
    programs: ProgramStore
    executions: ExecutionStore
    nodes: Nodes
    budgets: BudgetLedger
    keys: KeyStore
    audit: AuditStore
    jobs: JobStore
    background: "BackgroundStore"
    batches: "BatchStore"
    datasets: "DatasetStore"
    feedback: "FeedbackStore"
    evaluations: "EvaluationStore"
    optimizations: "OptimizationStore"
    journal: "Journal"
    signals: SignalStore
    analytics: ExecutionAnalytics
    alerts: AlertBoard
    recorder: ExecutionWriter
    ping: Callable[[], Awaitable[None]]
    connections: Callable[[], tuple[int, int, int] | None]


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """At the newest revision. Leaving it commits what is queued.

    Raises Unavailable, Invalid for an address that can't be used, Conflict for a newer database.
    """
    if is_sqlite(settings.database):
        from dspex.storage.sqlite.opening import open_sqlite as opened
    else:
        opened = _open_server
    async with opened(settings) as database:
        try:
            yield database
        finally:
            await database.recorder.close()


@asynccontextmanager
async def _open_server(settings: Settings) -> AsyncIterator[Database]:
    from dspex.storage.dialects import server_dialect_for
    from dspex.storage.dialects.postgresql_signals import PostgresqlSignals
    from dspex.storage.sql_stores import open_sql_stores
    from dspex.storage.tables import executions

    durability = settings.storage.durability
    dialect = server_dialect_for(settings.database, durability)
    stores = open_sql_stores(dialect)
    try:
        await ensure_current(stores.sessions)
        yield Database(
            signatures=stores.signatures,
            programs=stores.programs,
            executions=stores.executions,
            nodes=stores.nodes,
            budgets=stores.budgets,
            keys=stores.keys,
            audit=stores.audit,
            jobs=stores.jobs,
            background=stores.background,
            batches=stores.batches,
            datasets=stores.datasets,
            feedback=stores.feedback,
            evaluations=stores.evaluations,
            optimizations=stores.optimizations,
            journal=stores.journal,
            signals=PostgresqlSignals(dialect, stores.sessions),
            recorder=ExecutionWriter(dialect.batch_writer(executions), dialect.moment, durability),
            ping=stores.sessions.ping,
            analytics=stores.analytics,
            alerts=stores.alerts,
            connections=stores.sessions.connections,
        )
    finally:
        await stores.journal.close()
        await stores.sessions.close()
