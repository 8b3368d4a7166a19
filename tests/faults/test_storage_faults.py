"""Databases that die, fill up, lock and hang up."""

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from dspex.configuration.settings import Settings
from dspex.executions.records import ExecutionFilter
from dspex.kit.errors import DspexError, Invalid, Unavailable
from dspex.storage.opening import open_database
from dspex.storage.sqlite import file
from tests.making import execution

ENOUGH = 400


def settings(url: str) -> Settings:
    return Settings(database_url=url)


@pytest.mark.parametrize("durability", ["normal", "full"])
async def test_every_acknowledged_record_survives_kill_9(database_url: str, durability: str) -> None:
    command = [sys.executable, "-m", "tests.faults.recording_process", database_url, durability]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(ENOUGH)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.readlines()
    ids = [line.strip() for line in acknowledged if line.endswith("\n")]
    assert len(ids) >= ENOUGH
    async with open_database(settings(database_url)) as database:
        for execution_id in ids:
            assert await database.executions.get("default", execution_id) is not None


@contextmanager
def full_disk(at_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond the size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_is_reported_and_survived(sqlite_url: str) -> None:
    async with open_database(settings(sqlite_url)) as database:
        await database.recorder.record(execution(id="before"))
        size = os.path.getsize(sqlite_url.removeprefix("sqlite:///") + "-wal")  # noqa: ASYNC240
        large = execution(inputs={"text": "x" * 500_000})
        with full_disk(size + 4096):
            for attempt in (database.recorder.record(large), database.executions.save([large])):
                with pytest.raises(Unavailable, match="disk") as refused:
                    await attempt
                assert (refused.value.code, refused.value.retry_after) == ("database_unavailable", 1)
            assert await database.executions.get("default", "before") is not None
        await database.recorder.record(large)
        assert await database.executions.get("default", large.id) == large


async def test_a_locked_database_is_reported_and_survived(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "BUSY_TIMEOUT_S", 0.05)
    async with open_database(settings(sqlite_url)) as database:
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        one = execution()
        for attempt in (database.recorder.record(one), database.executions.save([one])):
            with pytest.raises(Unavailable, match="lock"):
                await attempt
        assert await database.executions.get("default", one.id) is None
        other.execute("ROLLBACK")
        other.close()
        await database.recorder.record(one)
        assert await database.executions.get("default", one.id) == one


async def test_a_damaged_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "dspex.db"
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(Unavailable, match="no SQLite database"):
        async with open_database(settings(f"sqlite:///{path}")):
            pass


async def test_a_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="directory"):
        async with open_database(settings(f"sqlite:///{tmp_path}/file/dspex.db")):
            pass


@pytest.mark.parametrize(
    "url",
    [
        "mysql://localhost/x",
        "nonsense",
        "sqlite:///",
        "sqlite:///:memory:",
        "postgresql://u@127.0.0.1/x?pool_size=0",
        "postgresql://u@127.0.0.1/x?sslmode=nonsense",
        "postgresql://u@127.0.0.1:port/x",
    ],
)
async def test_an_address_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="DATABASE_URL"):
        async with open_database(settings(url)):
            pass


async def test_ended_connections_are_replaced_without_anybody_noticing(postgresql_url: str) -> None:
    async with open_database(settings(postgresql_url)) as database:
        for _ in range(2):
            one = execution()
            await database.recorder.record(one)
            assert await database.executions.get("default", one.id) == one
            killer = await asyncpg.connect(postgresql_url)
            ended = await killer.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert len(ended) >= 2
            await killer.close()


class Proxy:
    """Between us and PostgreSQL; it can be cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        back_reader, back_writer = await asyncio.open_connection(*self._target)
        try:
            await asyncio.gather(_copy(reader, back_writer), _copy(back_reader, writer))
        except (asyncio.CancelledError, OSError):
            pass
        finally:
            self._tasks.discard(task)
            for each in (writer, back_writer):
                each.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    parts = urlsplit(url)
    proxy = Proxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    await proxy.open()
    credentials = parts.netloc.rpartition("@")[0]
    netloc = f"{credentials}@127.0.0.1:{proxy.port}" if credentials else f"127.0.0.1:{proxy.port}"
    yield proxy, parts._replace(netloc=netloc).geturl()
    await proxy.cut()


async def test_a_server_that_goes_and_comes_back(postgresql_url: str) -> None:
    async with proxied(postgresql_url) as (proxy, url), open_database(settings(url)) as database:
        one = execution()
        await database.recorder.record(one)
        await proxy.cut()
        for attempt in (
            database.recorder.record(execution()),
            database.executions.get("default", one.id),
            database.ping(),
        ):
            with pytest.raises(Unavailable) as refused:
                await attempt
            assert (refused.value.code, refused.value.retry_after) == ("database_unavailable", 1)
        await proxy.open()
        later = execution()
        await database.recorder.record(later)
        page = await database.executions.list(
            "default", ExecutionFilter(), sort="created_at", limit=9, cursor=None
        )
        assert {one.id, later.id} <= {found.id for found in page.data}


@pytest.mark.parametrize(
    ("wrong", "reason"), [("/nowhere_at_all", "no such database"), ("", "can't be reached")]
)
async def test_a_wrong_address_says_what_is_wrong(postgresql_server: str, wrong: str, reason: str) -> None:
    url = postgresql_server.rpartition("/")[0] + wrong if wrong else "postgresql://u:secret@127.0.0.1:1/x"
    with pytest.raises(DspexError, match=reason) as refused:
        async with open_database(settings(url)):
            pass
    assert "secret" not in refused.value.message
