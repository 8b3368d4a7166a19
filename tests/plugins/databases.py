"""Databases for tests: a SQLite file each, and one PostgreSQL database a process, empty for each test.

Without a PostgreSQL server its tests are skipped, and the last line of the run says so; with CI=true they
fail.
"""

import asyncio
import os
import secrets
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest

from dspex.storage.migrations import upgrade
from dspex.storage.tables import metadata

T = TypeVar("T")
# Servers that trust local connections rarely agree on the name of the user.
_LOCAL = [f"postgresql://{user}@127.0.0.1:5432/test" for user in ("test", "root", "postgres")]
_missing: set[str] = set()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["missing"] = sorted(_missing)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What one of several processes had to skip; nothing of one that crashed."""
    _missing.update(getattr(node, "workeroutput", {}).get("missing", ()))


def pytest_unconfigure(config: pytest.Config) -> None:
    if _missing and not hasattr(config, "workerinput"):
        print(f"SKIPPED: {', '.join(sorted(_missing))}.")


def missing(what: str) -> None:
    """Has the last line of the run say that these tests were skipped, and how to run them."""
    _missing.add(what)


def outside_loop(work: Callable[[], T]) -> T:
    """Runs it in a thread, where asyncio.run is allowed whatever this thread's loop is doing."""
    outcome: list[T] = []
    thread = threading.Thread(target=lambda: outcome.append(work()))
    thread.start()
    thread.join()
    assert outcome, "the work failed; its traceback is above"
    return outcome[0]


def _on_server(url: str, use: Callable[[Any], Awaitable[T]]) -> T:
    async def connected() -> T:
        connection = await asyncpg.connect(url, timeout=5)
        try:
            return await use(connection)
        finally:
            await connection.close()

    return outside_loop(lambda: asyncio.run(connected()))


def execute(url: str, *statements: str) -> None:
    async def run(connection: Any) -> None:
        for statement in statements:
            await connection.execute(statement)

    _on_server(url, run)


def _reachable(url: str) -> bool:
    async def connect() -> bool:
        try:
            await (await asyncpg.connect(url, timeout=5)).close()
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return False
        return True

    return outside_loop(lambda: asyncio.run(connect()))


@pytest.fixture(scope="session")
def postgresql_server() -> str:
    """The address of a server on which this run may create databases."""
    asked = os.environ.get("DSPEX_TEST_POSTGRES_URL")
    for url in [asked] if asked else _LOCAL:
        if _reachable(url):
            return url
    if os.environ.get("CI") == "true":
        pytest.fail("PostgreSQL can't be reached, and CI=true asks for it: set DSPEX_TEST_POSTGRES_URL")
    missing("the PostgreSQL tests, no server was found; set DSPEX_TEST_POSTGRES_URL to run them")
    pytest.skip("PostgreSQL can't be reached")


@pytest.fixture
def empty_postgresql(postgresql_server: str) -> Iterator[str]:
    """The address of a database of this test's own, without any table."""
    yield from _own_database(postgresql_server)


@pytest.fixture(scope="session")
def migrated_postgresql(postgresql_server: str) -> Iterator[str]:
    for url in _own_database(postgresql_server):
        outside_loop(lambda url=url: upgrade(url))  # type: ignore[misc]
        yield url


def _own_database(server: str) -> Iterator[str]:
    name = f"dspex_test_{secrets.token_hex(6)}"
    execute(server, f"CREATE DATABASE {name}")
    try:
        yield server.rpartition("/")[0] + f"/{name}"
    finally:
        execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def empty(url: str) -> None:
    """Removes all rows. Where there are few, TRUNCATE takes forty times as long: it makes every table anew."""
    execute(url, "; ".join(str(table.delete()) for table in reversed(metadata.sorted_tables)))


@pytest.fixture
def postgresql_url(migrated_postgresql: str) -> str:
    """A database at the newest revision, without any row."""
    empty(migrated_postgresql)
    return migrated_postgresql


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "dspex.db"
    outside_loop(lambda: upgrade(f"sqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """A database at the newest revision, without any row."""
    path = tmp_path / "dspex.db"
    shutil.copyfile(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The same test on both databases, at the newest revision, without any row."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same test on both databases, without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("empty_postgresql")
    return url
