"""Signals between processes on one SQLite file: a glance at the file's version, ten times a second."""

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from dspex.kit.signals import Payload
from dspex.storage.encoding import json_text, json_value
from dspex.storage.signals import StoredSignal
from dspex.storage.sqlite.file import SqliteFile
from dspex.storage.sqlite.statements import SqliteStatements

LOOK_S = 0.1


class SqliteSignals:
    """`storage.signals.SignalStore` on a SQLite file: writers take turns, so ids are in the order of commits."""

    def __init__(self, file: SqliteFile, statements: SqliteStatements) -> None:
        self._file = file
        self._statements = statements

    async def add(self, node: str, topic: str, payload: Payload, at: datetime) -> None:
        statement = "INSERT INTO signals (sent_at, node, topic, payload) VALUES (?, ?, ?, ?)"
        await self._statements.write(statement, at, node, topic, json_text(dict(payload)))

    async def prune(self, *, older_than: datetime) -> None:
        await self._statements.write("DELETE FROM signals WHERE sent_at < ?", older_than)

    def source(self) -> "SqliteSignalSource":
        return SqliteSignalSource(self._file)


class SqliteSignalSource:
    """Reads in the event loop: a look takes 5 us, a read 20, and readers of a WAL wait for nobody."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._connection: sqlite3.Connection | None = None
        self._seen: int | None = None

    async def newest(self) -> int:
        self._seen = self._version()
        (found,) = self._opened().execute("SELECT coalesce(max(id), 0) FROM signals").fetchone()
        return int(found)

    async def wait(self) -> None:
        # Nothing in this process knows when another one commits.
        while (version := self._version()) == self._seen:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        self._seen = version

    async def since(self, last: int) -> Sequence[StoredSignal]:
        rows = self._opened().execute(
            "SELECT id, node, topic, payload FROM signals WHERE id > ? ORDER BY id", (last,)
        )
        return [
            StoredSignal(number, node, topic, json_value(payload)) for number, node, topic, payload in rows
        ]

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _version(self) -> int:
        """Changes with every commit of another connection."""
        (version,) = self._opened().execute("PRAGMA data_version").fetchone()
        return int(version)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._file.connect()
        return self._connection
