"""JSON lines, and JSON documents that are read member by member."""

import codecs
import json as standard
import math
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

from dspex.datasets.columns import Record
from dspex.kit import json
from dspex.kit.errors import Invalid, Problem
from dspex.providers.dataset_files.lines import lines_of

CHUNK = 65_536
_SPACE = re.compile(r"[ \t\r\n]*")


def json_lines(file: BinaryIO, longest: int) -> Iterator[Record | Problem]:
    """One record a line; blank ones are passed over."""
    for number, line in lines_of(file, longest):
        if line is None:
            yield too_long(number, longest)
        elif line.strip():
            yield _read(number, line)


def too_long(number: int, longest: int) -> Problem:
    return Problem(f"/{number}", "row_too_large", f"line {number} has more than {longest} bytes")


def _read(number: int, text: bytes) -> Record | Problem:
    try:
        return Record(number, json.loads(text))
    except (ValueError, RecursionError) as error:
        return Problem(f"/{number}", "not_json", f"line {number} is not JSON: {json.why_not_json(error)}")


def json_array(file: BinaryIO, longest: int) -> Iterator[Record | Problem]:
    """The members of a list, or of the list `rows` of an object that has nothing before it; numbers are their lines.

    Raises Invalid (code bad_file) where it stops being JSON: what follows could be anything.
    """
    text = _Text(file, longest)
    if text.next() == "{":
        text.take("{")
        if text.key() != "rows":
            text.fail('must be a list of rows, or an object that begins with "rows"')
        text.take(":")
        in_object = True
    else:
        in_object = False
    text.take("[")
    if text.next() == "]":
        text.take("]")
    else:
        while True:
            text.next()
            line = text.line
            yield Record(line, text.value())
            if text.next() == "]":
                text.take("]")
                break
            text.take(",")
    while in_object and text.next() == ",":
        text.take(",")
        text.key()
        text.take(":")
        text.value()
    if in_object:
        text.take("}")
    if text.next():
        text.fail("has something behind its end")


class _Text:
    """A window on the file. `line` is where the next token begins, from 1, once `next` has looked for it."""

    def __init__(self, file: BinaryIO, longest: int) -> None:
        self._file = file
        self._longest = longest
        self._decode = standard.JSONDecoder(parse_constant=_constant, parse_float=_finite).raw_decode
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._ended = False
        self.line = 1

    def next(self) -> str:
        """The first character of the next token; "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._pass(space.end() if space else self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, mark: str) -> None:
        if self.next() != mark:
            self.fail(f"is not JSON: {mark} is missing")
        self._at += 1

    def key(self) -> str:
        if self.next() != '"':
            self.fail("is not JSON: a name in quotes is missing")
        value: str = self.value()
        return value

    def value(self) -> Any:
        """One JSON value. It is read anew with every piece of the file until it is whole."""
        if not self.next():
            self.fail("ends too early")
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except RecursionError:
                self.fail("is nested too deeply")
            except standard.JSONDecodeError as error:
                if len(self._text) - self._at > self._longest:
                    self.fail(
                        f"has a value of more than {self._longest} characters, or is not JSON: {error.msg}"
                    )
                if not self._more():
                    self.fail(f"is not JSON: {error.msg}")
                continue
            except ValueError as error:
                self.fail(f"is not JSON: {error}")
            # A number at the end of what was read may go on.
            if end < len(self._text) or not self._more():
                self._pass(end)
                return value

    def fail(self, reason: str) -> NoReturn:
        raise Invalid(
            f"The file {reason} (line {self.line}).",
            code="bad_file",
            problems=[Problem(f"/{self.line}", "not_json", reason)],
        )

    def _pass(self, end: int) -> None:
        self.line += self._text.count("\n", self._at, end)
        self._at = end

    def _more(self) -> bool:
        """Reads on, as much again as there is; False at the end."""
        if self._ended:
            return False
        left = self._text[self._at :]
        piece = self._file.read(max(CHUNK, len(left)))
        self._ended = not piece
        try:
            read = self._utf8.decode(piece, self._ended)
        except UnicodeDecodeError as error:
            self.line += left.count("\n") + piece[: error.start].count(b"\n")
            self.fail("is not UTF-8")
        self._text, self._at = left + read, 0
        return not self._ended


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} does not exist in JSON")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text[:40]} is too large a number")
    return number
