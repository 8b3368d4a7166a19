"""SQLite through SQLAlchemy: one writer at a time."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from dspex.storage.batches import BatchWriter, upsert_statement
from dspex.storage.dialects.base import Dialect, named
from dspex.storage.encoding import json_text, json_value, time_text
from dspex.storage.sqlite import file
from dspex.storage.sqlite.batch_writer import SqliteBatchWriter
from dspex.storage.sqlite.file import SqliteFile

POOL_SIZE = 4


class SqliteDialect(Dialect):
    def __init__(self, at: SqliteFile) -> None:
        self._file = at

    async def prepare(self) -> None:
        await self._file.prepare()

    def check_place(self) -> None:
        self._file.check_place()

    def engine(self) -> AsyncEngine:
        engine = create_async_engine(
            sa.URL.create("sqlite+aiosqlite", database=self._file.path),
            connect_args={
                "factory": self._file.factory(),
                "timeout": file.BUSY_TIMEOUT_S,
                "isolation_level": None,
            },
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=file.BUSY_TIMEOUT_S,
            json_serializer=json_text,
            json_deserializer=json_value,
        )
        # The driver would begin at the first write, too late: a read before it can't be upgraded to a
        # write once another process wrote in between.
        sa.event.listen(engine.sync_engine, "begin", _begin)
        return engine

    def insert(self, table: sa.Table) -> Insert:
        return insert(table)

    def moment(self, at: datetime) -> str:
        return time_text(at)

    def upsert(self, table: sa.Table) -> str:
        return upsert_statement(*named(table), ["?"] * len(table.columns))

    def batch_writer(self, table: sa.Table) -> BatchWriter:
        return SqliteBatchWriter(self._file, self.upsert(table))

    def day(self, column: "sa.Column[Any]") -> sa.ColumnElement[Any]:
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
