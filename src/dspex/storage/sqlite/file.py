"""The file itself: where it is, whether it is still the one that was opened, connections to it."""

import asyncio
import os
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dspex.kit.errors import Invalid, Unavailable
from dspex.storage.batches import Durability
from dspex.storage.failures import as_unavailable, unavailable

BUSY_TIMEOUT_S = 5.0


class SqliteFile:
    """One database in WAL mode, written to with one durability."""

    def __init__(self, path: str, durability: Durability) -> None:
        self.path = path
        self._synchronous = "FULL" if durability == "full" else "NORMAL"
        self._opened: tuple[int, int] | None = None

    async def prepare(self) -> None:
        """Makes the file and its directory. Raises Unavailable when it can't be opened."""
        await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        directory = Path(self.path).parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise unavailable(f"its directory {directory} can't be made ({error.strerror})") from None
        try:
            # What is in it is nobody else's affair; SQLite's own files beside it have the mode of this one.
            os.close(os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            # Here rather than by the pool: a connection that aiosqlite fails to open leaves a thread behind.
            self.connect().close()
        except OSError as error:
            raise unavailable(f"{self.path} can't be opened ({error.strerror})") from None
        except sqlite3.Error as error:
            raise as_unavailable(error) or error from None
        self._opened = self._file()

    def check_place(self) -> None:
        """Raises Unavailable (code database_replaced) when the open file is not the one at the path."""
        if self._opened is not None and self._file() != self._opened:
            raise Unavailable(
                "The SQLite file was removed or replaced while this node has it open, so that records would "
                "be lost. Put the same file back, or restart the node to use the one that is there now.",
                code="database_replaced",
                retry_after=1,
            )

    def _file(self) -> tuple[int, int] | None:
        """Which file is at the path; open connections stay with theirs, even when it has no name any more."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def connect(self) -> sqlite3.Connection:
        """Usable from any one thread at a time. Every statement commits by itself unless BEGIN is said."""
        return sqlite3.connect(
            self.path,
            factory=self.factory(),
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )

    def factory(self) -> type[sqlite3.Connection]:
        synchronous = self._synchronous

        class Configured(sqlite3.Connection):
            """Set up as it opens, in the driver's own thread: each PRAGMA by itself would be a thread hop."""

            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                _use_wal(self)
                self.execute(f"PRAGMA synchronous = {synchronous}")
                self.execute("PRAGMA foreign_keys = ON")

        return Configured


def _use_wal(connection: sqlite3.Connection) -> None:
    """The mode stays in the file. Switching to it does not wait for locks by itself, so this does."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def is_sqlite(url: str) -> bool:
    return url.partition("://")[:2] in (("sqlite", "://"), ("sqlite+aiosqlite", "://"))


def path_of(url: str) -> str:
    """The file of `sqlite:///relative` or `sqlite:////absolute`. Raises Invalid for one without a file."""
    path = url.partition("://")[2].partition("?")[0]
    if len(path) < 2 or not path.startswith("/") or path == "/:memory:":
        raise Invalid(
            "DATABASE_URL names no file; write sqlite:///dspex.db, or sqlite:////var/lib/dspex.db with four "
            "slashes for an absolute path.",
            code="bad_database_url",
        )
    return str(Path(unquote(path[1:])).expanduser())
