"""What differs between the databases, behind one class; stores hold no `if` about them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

Durability = Literal["relaxed", "normal", "full"]
Row = tuple[Any, ...]


class BatchWriter(Protocol):
    """A connection of its own that commits rows of one table; not for concurrent use."""

    async def write(self, rows: Sequence[Row]) -> None:
        """All rows or none, committed on return. Raises Unavailable, or the driver's error for a bad row.

        A write that failed as Unavailable may be repeated: rows replace those of the same key.
        """
        ...

    async def close(self) -> None: ...


class Dialect(ABC):
    """One database, at one address, written to with one durability."""

    @abstractmethod
    async def prepare(self) -> None:
        """Makes room for the database where it is a file. Raises Unavailable when it can't be opened."""

    @abstractmethod
    def check_place(self) -> None:
        """Raises Unavailable (code database_replaced) when the open database is not the one at its address.

        Costs microseconds: every transaction asks.
        """

    @abstractmethod
    def engine(self) -> AsyncEngine:
        """A new engine with its own pool. With the option `writes` a connection locks before it reads."""

    @abstractmethod
    def insert(self, table: sa.Table) -> SqliteInsert | PostgresqlInsert:
        """An insert that knows ON CONFLICT."""

    @abstractmethod
    def moment(self, at: datetime) -> Any:
        """A time as the driver takes it in a hand-written statement."""

    @abstractmethod
    def upsert(self, table: sa.Table) -> str:
        """Hand-written: inserts a row of all columns in order, or replaces the one of the same key."""

    @abstractmethod
    def batch_writer(self, table: sa.Table) -> BatchWriter: ...

    @abstractmethod
    def day(self, column: "sa.Column[Any]") -> sa.ColumnElement[str]:
        """The UTC day of a time, as 2026-01-31."""

    @abstractmethod
    async def percentiles(
        self,
        connection: AsyncConnection,
        column: "sa.Column[float]",
        where: sa.ColumnElement[bool],
        fractions: Sequence[float],
    ) -> list[float | None]:
        """Interpolated as SQL's percentile_cont; None when there are no values."""

    @abstractmethod
    async def serialize(self, connection: AsyncConnection, *names: str) -> None:
        """Until the transaction ends, nobody else passes here with these names."""

    @abstractmethod
    async def lock_migrations(self, connection: AsyncConnection) -> None:
        """Until the transaction ends, no other process migrates."""


def upsert_statement(table: sa.Table, parameters: Sequence[str]) -> str:
    columns = [column.name for column in table.columns]
    key = [column.name for column in table.primary_key.columns]
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    return (
        f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join(parameters)}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
    )
