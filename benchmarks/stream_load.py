"""Readers of streams: each asks once and reads to the end, and knows of every piece how long it was on its way."""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import cast

import orjson

# The benchmark's model writes the time into each piece: microseconds of the clock that all processes share.
STAMP = re.compile(rb"@(\d+)")
_END = re.compile(rb"event: (result|error)\ndata: (.*)")


@dataclass(frozen=True, slots=True)
class Streams:
    """Lags are milliseconds from the model's writing a piece to its reader, sorted; `first` of each stream's first."""

    lags: list[float]
    first: list[float]
    pieces: int
    wrong: int
    example: str | None


def percentile(values: list[float], percent: float) -> float:
    return values[min(int(len(values) * percent / 100), len(values) - 1)]


class _Reader(asyncio.Protocol):
    def __init__(self, over: "asyncio.Future[None]") -> None:
        self._over = over
        self._stamped = 0
        self.received = bytearray()
        self.lags: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns() // 1000
        self.received += data
        # What no line ends may go on in the next piece; the result has all of them once more.
        end = self.received.find(b"event: result", self._stamped)
        if end < 0:
            end = self.received.rfind(b"\n")
        if end > self._stamped:
            for stamp in STAMP.finditer(self.received, self._stamped, end):
                self.lags.append((now - int(stamp[1])) / 1000)
            self._stamped = end
        if self.received.endswith(b"0\r\n\r\n"):
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


async def read_streams(
    port: int, path: str, bodies: list[dict[str, object]], pieces: int, spread_s: float
) -> Streams:
    """One stream for each body, begun within `spread_s`. A stream is wrong that has not all the pieces."""
    loop = asyncio.get_running_loop()
    lags, first, wrong = [], [], []

    async def read(number: int, body: dict[str, object]) -> None:
        await asyncio.sleep(spread_s * number / len(bodies))
        over: asyncio.Future[None] = loop.create_future()
        transport, reader = await loop.create_connection(lambda: _Reader(over), "127.0.0.1", port)
        written = orjson.dumps(body)
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"accept: text/event-stream\r\ncontent-length: {len(written)}\r\n\r\n"
        )
        transport.write(head.encode() + written)
        await over
        transport.close()
        problem = _problem(bytes(reader.received), len(reader.lags), pieces)
        if problem is not None:
            wrong.append(problem)
            return
        lags.extend(reader.lags)
        first.append(reader.lags[0])

    await asyncio.gather(*(read(number, body) for number, body in enumerate(bodies)))
    example = wrong[0][:500] if wrong else None
    return Streams(sorted(lags), sorted(first), len(lags), len(wrong), example)


def _problem(received: bytes, seen: int, expected: int) -> str | None:
    end = _END.search(received)
    if end is None:
        # A server that only passes the model's own events on.
        complete = received.count(b"@") == expected and b"[DONE]" in received
        return None if complete else received[-500:].decode(errors="replace")
    if end[1] == b"error" or end[2].count(b"@") != expected or seen != expected:
        return f"{seen} of {expected} pieces, then {end[0].decode(errors='replace')}"
    return None
