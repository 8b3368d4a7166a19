"""Fields of a reply in the chat adapter's form, as far as it has come."""

import re
from collections.abc import Collection

from dspex.executions.native.streaming.ports import Found

_HEADER = re.compile(r"\[\[ ## (\w+) ## \]\]")
_MARK = "[[ ## "
_REST = re.compile(r"\w+(?: (?:#(?:#(?: (?:\](?:\])?)?)?)?)?)?")
# A line that may still become a header is kept back up to here; beyond it the reader gives up.
MOST_HELD = 2000


class ChatFields:
    """`parsing._chat`, in pieces. A line that is no header, or no longer can be one, belongs to the field above it.

    Whitespace is told once something follows it, since the end of a value is trimmed.
    """

    def __init__(self, texts: Collection[str], others: Collection[str], found: Found) -> None:
        self._texts = texts
        self._others = others
        self._found = found
        self._seen: set[str] = set()
        self._field: str | None = None
        # Of a field that is no text: all there is of it. Of a text: whitespace that may turn out to be its end.
        self._kept: list[str] = []
        self._begun = False
        # The beginning of a line, while it may be one of a header; None after that.
        self._line: str | None = ""
        self._on_header = False
        self._after_return = False
        self._lost = False

    def add(self, text: str) -> None:
        if self._lost or not text:
            return
        if self._after_return:
            # The two are one end of a line.
            text = text.removeprefix("\n")
        self._after_return = text.endswith("\r")
        for line in text.splitlines(keepends=True):
            body = line.splitlines()[0]
            if body:
                self._add(body)
            if len(body) < len(line):
                self._end_line()

    def _add(self, body: str) -> None:
        if self._line is None:
            self._say(body)
            return
        self._line += body
        trimmed = self._line.lstrip()
        if header := _HEADER.match(trimmed):
            self._begin(header.group(1))
            # As the parser does: it cuts the untrimmed line where the trimmed one's header ends.
            rest = self._line[header.end() :]
            self._line, self._on_header = None, True
            self._say(rest)
        elif not _may_begin_header(trimmed):
            line, self._line = self._line, None
            self._say(line)
        elif len(self._line) > MOST_HELD:
            self._lost = True

    def _end_line(self) -> None:
        if self._line:
            self._say(self._line)
        if self._on_header:
            # What follows a header on its line is trimmed by itself.
            self._kept = ["".join(self._kept).rstrip()]
        self._line, self._on_header = "", False
        self._say("\n")

    def _begin(self, name: str) -> None:
        self._end_field()
        known = name not in self._seen and (name in self._texts or name in self._others)
        self._seen.add(name)
        self._field, self._begun = (name if known else None), False
        self._kept.clear()

    def _end_field(self) -> None:
        if self._field is not None and self._field in self._others:
            self._found.whole(self._field, "".join(self._kept).strip())

    def _say(self, text: str) -> None:
        field = self._field
        if field is None:
            return
        if field in self._others:
            self._kept.append(text)
            return
        said = text.rstrip()
        if not said:
            if self._begun:
                self._kept.append(text)
            return
        if not self._begun:
            self._begun, beginning = True, said.lstrip()
        elif self._kept:
            beginning = "".join(self._kept) + said
            self._kept.clear()
        else:
            beginning = said
        if len(said) < len(text):
            self._kept.append(text[len(said) :])
        self._found.text(field, beginning)


def _may_begin_header(trimmed: str) -> bool:
    if len(trimmed) <= len(_MARK):
        return _MARK.startswith(trimmed)
    return trimmed.startswith(_MARK) and _REST.fullmatch(trimmed, len(_MARK)) is not None
