"""Pools whose workers run as another user of the system: whether that can be, and what they could read."""

from collections.abc import Iterator
from pathlib import Path

import structlog

from dspex.application.source import Source
from dspex.configuration.settings import Settings
from dspex.providers.pool.accounts import accounts_of
from dspex.storage.sqlite.file import is_sqlite, path_of

log = structlog.get_logger(__name__)


def check_pool_users(settings: Settings, source: Source) -> None:
    """Raises Invalid for users that there are not, or that this process can't become.

    Warns of files with secrets in them that such a user may read.
    """
    for pool, account in accounts_of(settings.pools).items():
        for file in _secret_files(settings, source):
            if account.may_read(file):
                log.warning("secrets_readable", pool=pool, user=account.name, file=str(file))


def _secret_files(settings: Settings, source: Source) -> Iterator[Path]:
    yield from dict.fromkeys(one.absolute() for one in (Path(".env"), source.directory / ".env"))
    if is_sqlite(settings.database):
        file = Path(path_of(settings.database))
        yield file
        yield file.with_name(f"{file.stem}-jobs.db")
