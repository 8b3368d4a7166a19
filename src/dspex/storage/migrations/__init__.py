"""The schema's history. SQLAlchemy and Alembic are imported only when there is something to do."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dspex.kit.errors import Conflict

if TYPE_CHECKING:
    import sqlalchemy as sa
    from alembic.config import Config

    from dspex.storage.sessions import ReadSession, Sessions, WriteSession

T = TypeVar("T")
# Oldest first. Kept here so that the usual start, with nothing to do, does not load Alembic.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011")
HEAD = REVISIONS[-1]


def upgrade(database_url: str, revision: str = "head") -> None:
    """Raises Unavailable, Conflict: database_newer for a schema this DSPex does not know, bad_revision for one that

    is unknown or lies behind.
    """
    asyncio.run(_with_sessions(database_url, lambda sessions: _move(sessions, "upgrade", revision)))


def downgrade(database_url: str, revision: str) -> None:
    """To an earlier revision, or "base" for none; their tables and rows go. Raises as `upgrade` does."""
    asyncio.run(_with_sessions(database_url, lambda sessions: _move(sessions, "downgrade", revision)))


def current(database_url: str) -> str | None:
    """The stored revision; None for an empty database. Raises Unavailable."""
    return asyncio.run(_with_sessions(database_url, _current))


def is_current(database_url: str) -> bool:
    return current(database_url) == HEAD


async def ensure_current(sessions: "Sessions") -> None:
    """Upgrades when needed; of several processes one does it while the others wait.

    Raises Unavailable, or Conflict (code database_newer) for a schema this DSPex does not know.
    """
    stored = await _current(sessions)
    _check_known(stored)
    if stored != HEAD:
        await _move(sessions, "upgrade", "head")


async def _with_sessions(database_url: str, use: "Callable[[Sessions], Awaitable[T]]") -> T:
    from dspex.storage.dialects import dialect_for
    from dspex.storage.sessions import Sessions

    dialect = dialect_for(database_url)
    await dialect.prepare()
    sessions = Sessions(dialect)
    try:
        return await use(sessions)
    finally:
        await sessions.close()


async def _current(sessions: "Sessions") -> str | None:
    async with sessions.reading() as session:
        return await _stored(session)


async def _stored(session: "ReadSession") -> str | None:
    import sqlalchemy as sa

    if not await session.run_sync(lambda connection: sa.inspect(connection).has_table("alembic_version")):
        return None
    found = await session.execute(sa.text("SELECT version_num FROM alembic_version"))
    revision: str | None = found.scalar_one_or_none()
    return revision


async def _move(sessions: "Sessions", direction: str, revision: str) -> None:
    async with sessions.writing() as session:
        await sessions.dialect.lock_migrations(session)
        # Read again under the lock: another process may have done it.
        stored = await _stored(session)
        _check_known(stored)
        if direction == "upgrade" and _is_before(revision, stored):
            raise Conflict(
                f"The database is at {stored}, which is past {revision}. To go back to it, and lose what is "
                "newer, say --down.",
                code="bad_revision",
            )
        if direction == "upgrade" and stored == HEAD:
            return
        await _run(session, direction, revision)


def _is_before(revision: str, stored: str | None) -> bool:
    return stored is not None and revision in REVISIONS[: REVISIONS.index(stored)]


async def _run(session: "WriteSession", direction: str, revision: str) -> None:
    from alembic import command
    from alembic.util import CommandError

    def run(connection: "sa.Connection") -> None:
        move = command.upgrade if direction == "upgrade" else command.downgrade
        move(config(connection), revision)

    try:
        await session.run_sync(run)
    except CommandError as error:
        raise Conflict(
            f"The database can't be migrated to {revision!r}: {error}. "
            f"Known revisions: {', '.join(REVISIONS)}.",
            code="bad_revision",
        ) from None


def config(connection: "sa.Connection") -> "Config":
    """Alembic's configuration, without a file: it runs on the connection it is given."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def is_known(stored: str | None) -> bool:
    """Whether this release can read a database at this revision (None: an empty one)."""
    return stored is None or stored in REVISIONS


def _check_known(stored: str | None) -> None:
    if not is_known(stored):
        raise Conflict(
            f"The database is at revision {stored}, which this DSPex does not know: "
            "a newer one has upgraded it. Run the newer DSPex, or restore a backup made before the upgrade.",
            code="database_newer",
        )
