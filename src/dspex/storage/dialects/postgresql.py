"""PostgreSQL through asyncpg, which is imported when the first connection is made."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from dspex.kit.errors import Invalid
from dspex.storage.batches import BatchWriter, Durability, Row, upsert_statement
from dspex.storage.dialects.base import Dialect, named
from dspex.storage.encoding import json_text, json_value, utc
from dspex.storage.failures import as_unavailable

if TYPE_CHECKING:
    import asyncpg

CONNECT_TIMEOUT_S = 5.0
POOL_TIMEOUT_S = 5.0
STATEMENT_TIMEOUT_S = 60.0
WRITE_TIMEOUT_S = 10.0
POOL_SIZE = 10
STATEMENT_CACHE_SIZE = 100
# Any constant: what matters is that every DSPex process uses the same.
_MIGRATIONS_LOCK = 0x_D59E_0001
# Quotes nothing of the address: what can't be read in it is mostly the password.
_UNREADABLE = Invalid(
    "DATABASE_URL can't be read; write postgresql://user:password@host:5432/name, with % and two hex digits for "
    "what is special in the password (%40 is @, %3A is :, %2F is /).",
    code="bad_database_url",
)


class PostgresqlDialect(Dialect):
    """The address is libpq's (sslmode and the like included), and asyncpg reads it.

    `pool_size` and `statement_cache_size` in its query are ours; set the latter to 0 behind a pooler that
    hands one connection to many clients within a session.
    """

    def __init__(self, url: str, durability: Durability) -> None:
        self._dsn, ours = split_address(url)
        self._pool_size = ours.get("pool_size", POOL_SIZE)
        self._cache_size = ours.get("statement_cache_size", STATEMENT_CACHE_SIZE)
        # normal leaves the server's own setting alone, which waits for its disk by default.
        self._synchronous_commit = {"relaxed": "off", "full": "on"}.get(durability)

    async def prepare(self) -> None:
        """Nothing to do: databases are made by the server's owner, and the first connection says the rest."""

    def check_place(self) -> None:
        """Nothing to do: a server that is another one after a failure is connected to anew, and is asked."""

    def engine(self) -> AsyncEngine:
        return create_async_engine(
            sa.URL.create("postgresql+asyncpg"),
            async_creator=lambda: self.connect(STATEMENT_TIMEOUT_S),
            pool_size=self._pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_S,
            # Reads are rare on the way of a request, so a round trip to find dead connections is worth it.
            pool_pre_ping=True,
            json_serializer=json_text,
            json_deserializer=json_value,
        )

    async def connect(self, timeout_s: float) -> "asyncpg.Connection":
        try:
            import asyncpg
        except ImportError:
            raise Invalid(
                "PostgreSQL needs a driver that is not installed; run pip install 'dspex[postgres]'.",
                code="postgresql_driver_missing",
            ) from None
        settings = {"application_name": "dspex"}
        if self._synchronous_commit:
            settings["synchronous_commit"] = self._synchronous_commit
        try:
            return await asyncpg.connect(
                self._dsn,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=timeout_s,
                statement_cache_size=self._cache_size,
                server_settings=settings,
            )
        except (ValueError, OverflowError):
            raise _UNREADABLE from None
        except asyncpg.UndefinedObjectError:
            raise Invalid(
                "DATABASE_URL has a parameter after the question mark that the server does not know.",
                code="bad_database_url",
            ) from None

    def insert(self, table: sa.Table) -> Insert:
        return insert(table)

    def moment(self, at: datetime) -> datetime:
        return utc(at)

    def upsert(self, table: sa.Table) -> str:
        return upsert_statement(*named(table), [f"${number}" for number in range(1, len(table.columns) + 1)])

    def batch_writer(self, table: sa.Table) -> BatchWriter:
        return PostgresqlBatchWriter(self, self.upsert(table))

    def day(self, column: "sa.Column[Any]") -> sa.ColumnElement[Any]:
        # A date is grouped by in half the time that its text takes.
        return sa.cast(sa.func.timezone("UTC", column), sa.Date)

    async def percentiles(
        self,
        connection: AsyncConnection,
        column: "sa.Column[float]",
        where: sa.ColumnElement[bool],
        fractions: Sequence[float],
    ) -> list[float | None]:
        computed = [sa.func.percentile_cont(fraction).within_group(column) for fraction in fractions]
        return list((await connection.execute(sa.select(*computed).where(where))).one())

    async def serialize(self, connection: AsyncConnection, *names: str) -> None:
        key = sa.func.hashtextextended("\x1f".join(names), 0)
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    async def lock_migrations(self, connection: AsyncConnection) -> None:
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATIONS_LOCK)))


class PostgresqlBatchWriter:
    """asyncpg sends a batch as one transaction in one go: a single round trip for any number of rows."""

    def __init__(self, dialect: PostgresqlDialect, statement: str) -> None:
        self._dialect = dialect
        self._statement = statement
        self._connection: asyncpg.Connection | None = None

    async def write(self, rows: Sequence[Row]) -> None:
        reused = self._connection is not None
        try:
            await self._write(rows)
        except Exception as failure:
            public = as_unavailable(failure)
            if public is None:
                raise
            await self._drop()
            # A server that restarted or ended the connection may be there again.
            if not reused or isinstance(failure, TimeoutError):
                raise public from failure
            await self._write_anew(rows)

    async def _write_anew(self, rows: Sequence[Row]) -> None:
        try:
            await self._write(rows)
        except Exception as failure:
            await self._drop()
            raise as_unavailable(failure) or failure from failure

    async def _write(self, rows: Sequence[Row]) -> None:
        if self._connection is None:
            self._connection = await self._dialect.connect(WRITE_TIMEOUT_S)
        await self._connection.executemany(self._statement, rows)

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(timeout=CONNECT_TIMEOUT_S)


def split_address(url: str) -> tuple[str, dict[str, int]]:
    """The address as libpq knows it, and the members of its query that are ours. Raises Invalid."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _UNREADABLE from None
    ours: dict[str, int] = {}
    theirs: list[tuple[str, str]] = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in ("pool_size", "statement_cache_size"):
            theirs.append((name, value))
        elif value.isascii() and value.isdigit() and (name != "pool_size" or int(value) > 0):
            ours[name] = int(value)
        else:
            raise Invalid(f"{name} in DATABASE_URL must be a whole number.", code="bad_database_url")
    return urlunsplit(parts._replace(scheme="postgresql", query=urlencode(theirs))), ours
