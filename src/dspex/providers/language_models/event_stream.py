"""Server-sent events as they come over the wire, without I/O: https://html.spec.whatwg.org/#event-stream-interpretation

Chunks may be cut anywhere, within a line or a character. Only `data` matters here: model servers say everything in it.
"""

from collections.abc import Iterator

_BOM = b"\xef\xbb\xbf"


class EventDecoder:
    """The data of each event, in bytes. Keeps what has not ended yet; its owner bounds what it is fed."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self._data: list[bytes] = []
        self._first = True

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The events that end in this chunk."""
        self._begun.append(chunk)
        if b"\n" not in chunk and b"\r" not in chunk:
            # Not joined before there is a line: a long one would be copied for each of its pieces.
            return
        lines = b"".join(self._begun).splitlines(keepends=True)
        # A carriage return at the end may be half of a line break.
        self._begun = [] if lines[-1].endswith(b"\n") else [lines.pop()]
        yield from self._events(lines)

    def close(self) -> Iterator[bytes]:
        """The last event, when the stream ends without the empty line that should follow it."""
        yield from self._events([*b"".join(self._begun).splitlines(), b""])
        self._begun = []

    def _events(self, lines: list[bytes]) -> Iterator[bytes]:
        for ended in lines:
            line = ended.rstrip(b"\r\n")
            if self._first:
                line, self._first = line.removeprefix(_BOM), False
            if not line:
                data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                self._data = []
                if data:
                    yield data
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
