"""Which file declares programs, as they remember it: two files on one database must not take each other's away."""

import os
from pathlib import Path

from msgspec import Struct

from dspex.application.source import Source
from dspex.configuration.settings import Settings
from dspex.storage.sqlite.file import is_sqlite, path_of


class Origin(Struct, frozen=True):
    """`name` is the file's, from `base`; empty without a file. What the file names lies in `directory`."""

    directory: Path
    name: str = ""
    base: Path = Path()

    def place_of(self, other: str) -> Path:
        """Where a file of that name would be."""
        return Path(os.path.normpath(self.base / other))

    def has(self, other: str) -> bool:
        """Whether it is there."""
        return self.place_of(other).is_file()


def origin_of(source: Source, settings: Settings) -> Origin:
    """From a SQLite file, so that both may be moved and copied together; else the absolute path."""
    if source.path is None:
        return Origin(source.directory)
    file = source.path.absolute()
    if not is_sqlite(settings.database):
        return Origin(source.directory, str(file))
    base = Path(path_of(settings.database)).absolute().parent
    return Origin(source.directory, os.path.relpath(file, base), base)
