"""Lines of a file, of bounded length."""

from collections.abc import Iterator
from typing import BinaryIO

BOM = b"\xef\xbb\xbf"


def lines_of(file: BinaryIO, longest: int) -> Iterator[tuple[int, bytes | None]]:
    """Number, from 1, and text of each line with its end; None for one of more than `longest` bytes, which is skipped.

    A byte order mark of UTF-8 is taken away.
    """
    number = 0
    while line := file.readline(longest + 2):
        number += 1
        if number == 1:
            line = line.removeprefix(BOM)
        if len(line.rstrip(b"\r\n")) > longest:
            while line and not line.endswith(b"\n"):
                line = file.readline(longest + 2)
            yield number, None
        else:
            yield number, line
