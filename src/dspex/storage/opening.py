"""One open database: the stores over it and the way records take into it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from dspex.configuration.settings import Settings
from dspex.storage.dialects import dialect_for
from dspex.storage.execution_writer import ExecutionWriter
from dspex.storage.migrations import ensure_current
from dspex.storage.sessions import Sessions
from dspex.storage.stores.executions import StoredExecutions
from dspex.storage.stores.nodes import StoredNodes
from dspex.storage.stores.programs import StoredPrograms
from dspex.storage.stores.signatures import StoredSignatures


@dataclass(frozen=True, slots=True)
class Database:
    sessions: Sessions
    signatures: StoredSignatures
    programs: StoredPrograms
    executions: StoredExecutions
    nodes: StoredNodes
    recorder: ExecutionWriter

    async def ping(self) -> None:
        """Raises Unavailable while the database does not answer."""
        await self.sessions.ping()


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """At the newest revision. Leaving it commits what is queued.

    Raises Unavailable, Invalid for an address that can't be used, Conflict for a newer database.
    """
    dialect = dialect_for(settings.database, settings.storage.durability)
    await dialect.prepare()
    sessions = Sessions(dialect)
    try:
        await ensure_current(sessions)
        recorder = ExecutionWriter(dialect, settings.storage.durability)
        try:
            yield Database(
                sessions=sessions,
                signatures=StoredSignatures(sessions),
                programs=StoredPrograms(sessions),
                executions=StoredExecutions(sessions),
                nodes=StoredNodes(sessions),
                recorder=recorder,
            )
        finally:
            await recorder.close()
    finally:
        await sessions.close()
