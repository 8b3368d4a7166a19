"""Short transactions, with reading and writing told apart by type."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NewType, cast

import sqlalchemy as sa
import structlog
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import QueuePool

from dspex.kit.errors import Unavailable
from dspex.storage.dialects import Dialect
from dspex.storage.failures import as_unavailable, unavailable

log = structlog.get_logger(__name__)
CLOSE_TIMEOUT_S = 5.0
ReadSession = NewType("ReadSession", AsyncConnection)
# Who may write may read; never the other way round.
WriteSession = NewType("WriteSession", ReadSession)


class Sessions:
    """One pool of connections. Never keep a session open across a call to a language model."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._engine = dialect.engine()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[ReadSession]:
        """One consistent view. Raises Unavailable (code database_unavailable or database_replaced)."""
        async with self._transaction(writes=False) as connection:
            yield ReadSession(connection)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[WriteSession]:
        """Committed at the end, rolled back on any exception. Raises as `reading` does."""
        async with self._transaction(writes=True) as connection:
            yield WriteSession(ReadSession(connection))

    @asynccontextmanager
    async def _transaction(self, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        self.dialect.check_place()
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(writes=writes)
                async with connection.begin():
                    yield connection
            if writes:
                self.dialect.check_place()
        except Exception as error:
            public = _public(error)
            if public is None:
                raise
            raise public from error

    def connections(self) -> tuple[int, int, int]:
        """Of the pool: in use, idle, and how many there may be."""
        pool = cast(QueuePool, self._engine.pool)
        return pool.checkedout(), pool.checkedin(), pool.size()

    async def ping(self) -> None:
        """Raises Unavailable while the database does not answer."""
        async with self.reading() as session:
            await session.execute(sa.text("SELECT 1"))

    async def close(self) -> None:
        """Says goodbye to the server, but does not wait for one that no longer answers."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._engine.dispose()
        except TimeoutError:
            log.warning("database_did_not_say_goodbye", waited_s=CLOSE_TIMEOUT_S)


def _public(error: Exception) -> Unavailable | None:
    """As `as_unavailable`, for what SQLAlchemy raises itself or makes of a driver's error."""
    if isinstance(error, exc.TimeoutError):
        return unavailable("all connections are busy; raise pool_size in DATABASE_URL or lower the load")
    if isinstance(error, exc.DBAPIError):
        known = None if error.orig is None else as_unavailable(error.orig)
        return known or (unavailable("the connection broke") if error.connection_invalidated else None)
    return as_unavailable(error)
