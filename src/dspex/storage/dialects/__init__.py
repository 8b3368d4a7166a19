"""The two databases. `dialect_for` chooses by the address."""

from dspex.kit.errors import Invalid
from dspex.storage.dialects.base import BatchWriter, Dialect, Durability, Row

__all__ = ["BatchWriter", "Dialect", "Durability", "Row", "dialect_for"]


def dialect_for(url: str, durability: Durability = "normal") -> Dialect:
    """For sqlite:///path, postgresql://... and postgres://...; raises Invalid (code bad_database_url)."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme in ("sqlite", "sqlite+aiosqlite"):
        from dspex.storage.dialects.sqlite import SqliteDialect, path_of

        return SqliteDialect(path_of(url), durability)
    if separator and scheme in ("postgres", "postgresql", "postgresql+asyncpg"):
        from dspex.storage.dialects.postgresql import PostgresqlDialect

        return PostgresqlDialect(url, durability)
    raise Invalid(
        "DATABASE_URL must look like sqlite:///path/to/file.db or postgresql://user@host:5432/name.",
        code="bad_database_url",
    )
