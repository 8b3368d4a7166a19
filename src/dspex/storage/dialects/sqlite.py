"""SQLite: one file, WAL, one writer at a time."""

import asyncio
import math
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import unquote

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from dspex.kit.errors import Invalid, Unavailable
from dspex.storage.dialects.base import BatchWriter, Dialect, Durability, Row, upsert_statement
from dspex.storage.encoding import json_text, json_value, time_text
from dspex.storage.failures import as_unavailable, unavailable

BUSY_TIMEOUT_S = 5.0
POOL_SIZE = 4


class SqliteDialect(Dialect):
    def __init__(self, path: str, durability: Durability) -> None:
        self.path = path
        self._synchronous = "FULL" if durability == "full" else "NORMAL"
        self._opened: tuple[int, int] | None = None

    async def prepare(self) -> None:
        await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        directory = Path(self.path).parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unavailable(f"its directory {directory} can't be made ({error.strerror})") from None
        try:
            # Here rather than by the pool: a connection that aiosqlite fails to open leaves a thread behind.
            self.connect().close()
        except sqlite3.Error as error:
            raise as_unavailable(error) or error from None
        self._opened = self._file()

    def check_place(self) -> None:
        if self._opened is not None and self._file() != self._opened:
            raise Unavailable(
                "The SQLite file was removed or replaced while this node has it open, so that records would "
                "be lost. Put the same file back, or restart the node to use the one that is there now.",
                code="database_replaced",
                retry_after=1,
            )

    def _file(self) -> tuple[int, int] | None:
        """Which file is at the path; open connections stay with theirs, even when it has no name any more."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def engine(self) -> AsyncEngine:
        engine = create_async_engine(
            sa.URL.create("sqlite+aiosqlite", database=self.path),
            connect_args={"factory": self._factory(), "timeout": BUSY_TIMEOUT_S, "isolation_level": None},
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT_S,
            json_serializer=json_text,
            json_deserializer=json_value,
        )
        # The driver would begin at the first write, too late: a read before it can't be upgraded to a
        # write once another process wrote in between.
        sa.event.listen(engine.sync_engine, "begin", _begin)
        return engine

    def connect(self) -> sqlite3.Connection:
        """A plain connection with the same settings, usable from any one thread at a time."""
        return sqlite3.connect(
            self.path,
            factory=self._factory(),
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )

    def _factory(self) -> type[sqlite3.Connection]:
        synchronous = self._synchronous

        class Configured(sqlite3.Connection):
            """Set up as it opens, in the driver's own thread: each PRAGMA by itself would be a thread hop."""

            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                _use_wal(self)
                self.execute(f"PRAGMA synchronous = {synchronous}")
                self.execute("PRAGMA foreign_keys = ON")

        return Configured

    def insert(self, table: sa.Table) -> Insert:
        return insert(table)

    def moment(self, at: datetime) -> str:
        return time_text(at)

    def upsert(self, table: sa.Table) -> str:
        return upsert_statement(table, ["?"] * len(table.columns))

    def batch_writer(self, table: sa.Table) -> BatchWriter:
        return SqliteBatchWriter(self, self.upsert(table))

    def day(self, column: "sa.Column[Any]") -> sa.ColumnElement[str]:
        return sa.func.substr(sa.type_coerce(column, sa.Text()), 1, 10)

    async def percentiles(
        self,
        connection: AsyncConnection,
        column: "sa.Column[float]",
        where: sa.ColumnElement[bool],
        fractions: Sequence[float],
    ) -> list[float | None]:
        present = where & column.is_not(None)
        count = (await connection.execute(sa.select(sa.func.count()).where(present))).scalar_one()
        if not count:
            return [None] * len(fractions)
        ranks = [fraction * (count - 1) for fraction in fractions]
        wanted = {edge for rank in ranks for edge in (math.floor(rank), math.ceil(rank))}
        number = (sa.func.row_number().over(order_by=column) - 1).label("number")
        ranked = sa.select(number, column.label("value")).where(present).subquery()
        found = await connection.execute(sa.select(ranked).where(ranked.c.number.in_(wanted)))
        values = {row.number: row.value for row in found}
        return [_between(values[math.floor(rank)], values[math.ceil(rank)], rank % 1) for rank in ranks]

    async def serialize(self, connection: AsyncConnection, *names: str) -> None:
        """Nothing to do: a write transaction holds the file's only write lock from its start."""

    async def lock_migrations(self, connection: AsyncConnection) -> None:
        """Nothing to do, for the same reason."""


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_wal(connection: sqlite3.Connection) -> None:
    """The mode stays in the file. Switching to it does not wait for locks by itself, so this does."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class SqliteBatchWriter:
    """A thread with its own connection: two hand-overs a batch, where aiosqlite needs two a statement."""

    def __init__(self, dialect: SqliteDialect, statement: str) -> None:
        self._dialect = dialect
        self._statement = statement
        self._jobs: SimpleQueue[tuple[Sequence[Row], asyncio.Future[None]] | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None

    async def write(self, rows: Sequence[Row]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dspex-executions", daemon=True)
            self._thread.start()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.put((rows, done))
        await done

    async def close(self) -> None:
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            rows, done = job
            error: BaseException | None = None
            try:
                self._commit(rows)
            except Exception as failure:
                error = as_unavailable(failure) or failure
            _tell(done, error)
            # Not kept until the next job comes: rows may be large.
            del job, rows, done, error
        if self._connection is not None:
            self._connection.close()

    def _commit(self, rows: Sequence[Row]) -> None:
        # Before, lest connecting makes a new file; after, lest what is acknowledged is in an unlinked one.
        self._dialect.check_place()
        self._insert(rows)
        self._dialect.check_place()

    def _insert(self, rows: Sequence[Row]) -> None:
        if self._connection is None:
            self._connection = self._dialect.connect()
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(self._statement, rows)
            connection.execute("COMMIT")
        except BaseException:
            # A fresh connection for the next batch: after an I/O error this one may never recover.
            self._connection = None
            connection.close()
            raise


def _tell(done: "asyncio.Future[None]", error: BaseException | None) -> None:
    def settle() -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    try:
        done.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:
        # The loop is closed: nobody is left to tell.
        return


def path_of(url: str) -> str:
    """The file of `sqlite:///relative` or `sqlite:////absolute`. Raises Invalid for one without a file."""
    path = url.partition("://")[2].partition("?")[0]
    if len(path) < 2 or not path.startswith("/") or path == "/:memory:":
        raise Invalid(
            "DATABASE_URL names no file; write sqlite:///dspex.db, or sqlite:////var/lib/dspex.db with four "
            "slashes for an absolute path.",
            code="bad_database_url",
        )
    return str(Path(unquote(path[1:])).expanduser())
