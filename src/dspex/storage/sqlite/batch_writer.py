"""Rows into one table, by a thread that has a connection of its own."""

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from queue import SimpleQueue

from dspex.storage.batches import Row
from dspex.storage.failures import as_unavailable
from dspex.storage.sqlite.file import SqliteFile


class SqliteBatchWriter:
    """A thread with its own connection: two hand-overs a batch, where aiosqlite needs two a statement."""

    def __init__(self, file: SqliteFile, statement: str) -> None:
        self._file = file
        self._statement = statement
        self._jobs: SimpleQueue[tuple[Sequence[Row], asyncio.Future[None]] | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None

    async def write(self, rows: Sequence[Row]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dspex-executions", daemon=True)
            self._thread.start()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.put((rows, done))
        await done

    async def close(self) -> None:
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            rows, done = job
            error: BaseException | None = None
            try:
                self._commit(rows)
            except Exception as failure:
                error = as_unavailable(failure) or failure
            _tell(done, error)
            # Not kept until the next job comes: rows may be large.
            del job, rows, done, error
        if self._connection is not None:
            self._connection.close()

    def _commit(self, rows: Sequence[Row]) -> None:
        # Before, lest connecting makes a new file; after, lest what is acknowledged is in an unlinked one.
        self._file.check_place()
        self._insert(rows)
        self._file.check_place()

    def _insert(self, rows: Sequence[Row]) -> None:
        if self._connection is None:
            self._connection = self._file.connect()
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(self._statement, rows)
            connection.execute("COMMIT")
        except BaseException:
            # A fresh connection for the next batch: after an I/O error this one may never recover.
            self._connection = None
            connection.close()
            raise


def _tell(done: "asyncio.Future[None]", error: BaseException | None) -> None:
    def settle() -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    try:
        done.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:
        # The loop is closed: nobody is left to tell.
        return
