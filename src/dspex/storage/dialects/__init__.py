"""The two databases. `dialect_for` chooses by the address."""

from typing import TYPE_CHECKING

from dspex.kit.errors import Invalid
from dspex.storage.batches import Durability
from dspex.storage.dialects.base import Dialect
from dspex.storage.sqlite.file import SqliteFile, is_sqlite, path_of

if TYPE_CHECKING:
    from dspex.storage.dialects.postgresql import PostgresqlDialect

__all__ = ["Dialect", "dialect_for", "server_dialect_for"]


def dialect_for(url: str, durability: Durability = "normal") -> Dialect:
    """For sqlite:///path, postgresql://... and postgres://...; raises Invalid (code bad_database_url)."""
    if is_sqlite(url):
        from dspex.storage.dialects.sqlite import SqliteDialect

        return SqliteDialect(SqliteFile(path_of(url), durability))
    return server_dialect_for(url, durability)


def server_dialect_for(url: str, durability: Durability) -> "PostgresqlDialect":
    """For an address that is no file; raises Invalid (code bad_database_url)."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme in ("postgres", "postgresql", "postgresql+asyncpg"):
        from dspex.storage.dialects.postgresql import PostgresqlDialect

        return PostgresqlDialect(url, durability)
    raise Invalid(
        "DATABASE_URL must look like sqlite:///path/to/file.db or postgresql://user@host:5432/name.",
        code="bad_database_url",
    )
