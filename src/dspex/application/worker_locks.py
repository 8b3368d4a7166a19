"""Which workers of this machine died: the kernel lets go of a dead process's locks at once."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_SUFFIX = ".lock"


@contextmanager
def alive(directory: Path, node: str) -> Iterator[list[str]]:
    """Shows to others of the same directory that this node lives, until it is left; gives the names of dead ones."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mine = directory / f"{node}{_SUFFIX}"
    with mine.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield [
                path.name.removesuffix(_SUFFIX)
                for path in directory.glob(f"*{_SUFFIX}")
                if _is_dead(path, mine)
            ]
        finally:
            mine.unlink(missing_ok=True)


def _is_dead(path: Path, mine: Path) -> bool:
    if path == mine:
        return False
    try:
        with path.open("rb") as file:
            if not _locked(file):
                return False
            path.unlink(missing_ok=True)
            return True
    except FileNotFoundError:
        # It left while we looked.
        return False


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
