"""Single statements by the standard library's driver, in threads: what a node needs before SQLAlchemy."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from dspex.storage.encoding import escape, time_text
from dspex.storage.failures import as_unavailable
from dspex.storage.sqlite.file import SqliteFile

T = TypeVar("T")
Parameter = str | int | float | datetime
IDLE = 4


class SqliteStatements:
    """Each statement is a transaction. Values are stored as in `types`: texts escaped, times in UTC."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        # A thread takes one and puts it back.
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    async def read(self, statement: str, *parameters: Parameter) -> list[dict[str, Any]]:
        """The rows by column, as stored. Raises Unavailable as `Sessions` does."""

        def fetch(connection: sqlite3.Connection) -> list[dict[str, Any]]:
            found = connection.execute(statement, _stored(parameters))
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found]

        return await asyncio.to_thread(self._use, fetch)

    async def write(self, statement: str, *parameters: Parameter) -> int:
        """How many rows it changed, committed. Raises Unavailable as `Sessions` does."""

        def change(connection: sqlite3.Connection) -> int:
            changed = connection.execute(statement, _stored(parameters)).rowcount
            # What was committed to a file that has no name any more is lost.
            self._file.check_place()
            return changed

        return await asyncio.to_thread(self._use, change)

    async def ping(self) -> None:
        """Raises Unavailable while the database does not answer."""
        await self.read("SELECT 1")

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._file.check_place()
        try:
            connection = self._take() or self._file.connect()
            try:
                done = work(connection)
            except BaseException:
                # A fresh one next time: after an I/O error this one may never recover.
                connection.close()
                raise
        except sqlite3.Error as error:
            public = as_unavailable(error)
            if public is None:
                raise
            raise public from error
        if len(self._idle) < IDLE:
            self._idle.append(connection)
        else:
            connection.close()
        if self._closed:
            self.close()
        return done

    def _take(self) -> sqlite3.Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            # Not asked before: another thread may have taken the last one since.
            return None

    def close(self) -> None:
        """A statement whose caller went away closes its connection when it ends."""
        self._closed = True
        while (connection := self._take()) is not None:
            connection.close()


def _stored(parameters: Sequence[Parameter]) -> list[str | int | float]:
    return [
        time_text(one) if isinstance(one, datetime) else escape(one) if isinstance(one, str) else one
        for one in parameters
    ]
