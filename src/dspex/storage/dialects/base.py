"""What differs between the databases, behind one class; stores hold no `if` about them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from dspex.storage.batches import BatchWriter

if TYPE_CHECKING:
    from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert
    from sqlalchemy.dialects.sqlite import Insert as SqliteInsert


class Dialect(ABC):
    """One database, at one address."""

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
    def insert(self, table: sa.Table) -> "SqliteInsert | PostgresqlInsert":
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
    def day(self, column: "sa.Column[Any]") -> sa.ColumnElement[Any]:
        """The UTC day of a time: what `str` makes 2026-01-31 of."""

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


def named(table: sa.Table) -> tuple[str, list[str], list[str]]:
    """Its name, its columns and its key, as `upsert_statement` takes them."""
    columns = [column.name for column in table.columns]
    return table.name, columns, [column.name for column in table.primary_key.columns]
