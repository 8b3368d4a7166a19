"""What a failing database becomes: Unavailable when it may come back; the rest are defects."""

import sqlite3
from typing import Final

from dspex.kit.errors import Unavailable

# https://www.sqlite.org/rescode.html; the primary code is the low byte.
_SQLITE: Final = {
    sqlite3.SQLITE_BUSY: "another process holds its lock; end long transactions on the file",
    sqlite3.SQLITE_LOCKED: "another connection holds its lock",
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_IOERR: "the disk does not answer (I/O error); look at the disk and its free space",
    sqlite3.SQLITE_READONLY: "the file is read-only; make it and its directory writable for this user",
    sqlite3.SQLITE_PERM: "this user may not open the file",
    sqlite3.SQLITE_CANTOPEN: "the file can't be opened; check that its directory exists and is writable",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore a backup",
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database; check DATABASE_URL",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
}
# https://www.postgresql.org/docs/current/errcodes-appendix.html; whole codes first, then their classes.
_POSTGRESQL: Final = {
    "25006": "it accepts no writes (read-only); connect to the primary",
    "28P01": "it refused the password; check DATABASE_URL",
    "28000": "it refused the user; check DATABASE_URL",
    "3D000": "there is no such database on the server; create it, or check DATABASE_URL",
    "53100": "its disk is full; free some space",
    "53300": "it has no free connections; lower pool_size or raise max_connections",
    "08": "the connection broke",
    "40": "it gave up a transaction in favour of another",
    "53": "it lacks resources",
    "55P03": "another session holds a lock",
    "57": "it is shutting down or starting, or an operator ended the connection",
    "58": "it reports a system error",
}


def unavailable(reason: str) -> Unavailable:
    return Unavailable(
        f"The database is unavailable: {reason}. Then try again.",
        code="database_unavailable",
        retry_after=1,
    )


def as_unavailable(error: BaseException) -> Unavailable | None:
    """The public error for a driver's: a database that is down, full, locked or in need of care.

    None for others.
    """
    if isinstance(error, sqlite3.Error):
        reason = _SQLITE.get((getattr(error, "sqlite_errorcode", None) or 0) & 0xFF)
        if reason is None and "no such table" in str(error):
            reason = "its tables are missing; run `dspex migrate`"
        return unavailable(reason) if reason else None
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str):
        if sqlstate == "42P01":
            return unavailable("its tables are missing; run `dspex migrate`")
        reason = _POSTGRESQL.get(sqlstate) or _POSTGRESQL.get(sqlstate[:2])
        return unavailable(reason) if reason else None
    if isinstance(error, TimeoutError):
        return unavailable("it did not answer in time")
    if isinstance(error, OSError):
        return unavailable(f"it can't be reached ({error.strerror or type(error).__name__})")
    # asyncpg reports a connection that closed under it without a code; one that closed in the middle of a
    # message leaves its protocol in a state of which it says only that it is a wrong one.
    if type(error).__name__ == "InternalClientError":
        return unavailable("the connection broke")
    if type(error).__name__ in ("InterfaceError", "ConnectionDoesNotExistError") and "clos" in str(error):
        return unavailable("the connection broke")
    return None
