"""Rows on their way into a table, in whatever way a database takes them fastest."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

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


def upsert_statement(
    table: str, columns: Sequence[str], key: Sequence[str], parameters: Sequence[str]
) -> str:
    """Inserts a row of these columns, or replaces the one of the same key."""
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(parameters)}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
    )
