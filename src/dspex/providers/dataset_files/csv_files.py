"""CSV with a header, in UTF-8, as RFC 4180 has it."""

import csv
from collections.abc import Iterator
from typing import BinaryIO

from dspex.datasets.columns import MOST_COLUMNS, Record
from dspex.kit.errors import Invalid, Problem
from dspex.providers.dataset_files.json_files import too_long
from dspex.providers.dataset_files.lines import lines_of
from dspex.signatures.problems import pointer_to


class _TooLong(Exception):
    """A line, or a cell in quotes that does not end."""


def csv_records(file: BinaryIO, longest: int) -> Iterator[Record | Problem]:
    """All values are text. A row's number is the line that it begins on.

    Raises Invalid (code bad_file) for a header that names no columns, and where quotes leave no way to tell the rows
    apart any more.
    """
    lines = _Lines(file, longest)
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while True:
        lines.begin()
        try:
            cells = next(reader, None)
        except _TooLong:
            yield too_long(lines.number, longest)
            raise _unreadable(
                lines.first, f"a row has more than {longest} bytes; is a quote missing?"
            ) from None
        except csv.Error as error:
            raise _unreadable(lines.first, str(error)) from None
        if cells is None:
            return
        if header is None:
            header = _header(cells)
        elif cells:
            yield _record(lines.first, header, cells)


class _Lines:
    """The lines for the reader, and where its present row begins."""

    def __init__(self, file: BinaryIO, longest: int) -> None:
        self._lines = lines_of(file, longest)
        self._longest = longest
        self._size = 0
        self.number = 0
        self.first = 1

    def begin(self) -> None:
        self._size, self.first = 0, self.number + 1

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        self._size += len(line or b"")
        if line is None or self._size > self._longest + 2:
            raise _TooLong
        # What is not UTF-8 is told with its cell.
        return line.decode(errors="surrogateescape")


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((one for one in names if names.count(one) > 1), None) if len(names) <= MOST_COLUMNS else None
    if len(names) > MOST_COLUMNS:
        raise _unreadable(1, f"there are more than {MOST_COLUMNS} columns")
    if not names or not all(names) or any(not _is_text(one) for one in names):
        raise _unreadable(1, "the first line must name every column, in UTF-8")
    if twice is not None:
        raise _unreadable(1, f"two columns are called {twice[:80]!r}")
    return names


def _record(number: int, header: list[str], cells: list[str]) -> Record | Problem:
    if len(cells) != len(header):
        return Problem(
            f"/{number}",
            "wrong_length",
            f"line {number} has {len(cells)} cells, and there are {len(header)} columns",
        )
    for name, cell in zip(header, cells, strict=True):
        if not _is_text(cell):
            return Problem(pointer_to(f"/{number}", [name]), "not_utf8", f"line {number} is not UTF-8 here")
    return Record(number, dict(zip(header, cells, strict=True)), text=True)


def _is_text(cell: str) -> bool:
    return cell.isascii() or not any("\udc80" <= one <= "\udcff" for one in cell)


def _unreadable(line: int, reason: str) -> Invalid:
    return Invalid(
        f"The file can't be read from line {line} on: {reason}.",
        code="bad_file",
        problems=[Problem(f"/{line}", "bad_file", reason)],
    )
