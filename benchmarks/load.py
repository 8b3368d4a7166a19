"""A closed loop of callers: each sends its next request when the last one's answer is there and checked."""

import asyncio
import itertools
import time
from dataclasses import dataclass
from typing import cast

from benchmarks.cases import Target

# Never the same inputs twice, warm-up included.
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Load:
    """What the callers saw. Latencies are seconds, sorted, of the requests that were measured; `total` counts

    these and the ones before and after, `wrong` the answers of all that were not as expected.
    """

    latencies: list[float]
    elapsed_s: float
    total: int
    wrong: int
    example: str | None

    @property
    def per_s(self) -> float:
        return len(self.latencies) / self.elapsed_s

    def percentile_ms(self, percent: float) -> float:
        return self.latencies[min(int(len(self.latencies) * percent / 100), len(self.latencies) - 1)] * 1000


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = b""
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not derived from asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError("the server closed the connection"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body. Raises ConnectionError when the server hangs up."""
        if self.transport.is_closing():
            raise ConnectionError("the server closed the connection")
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._waiting

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = received[:end].lower()
        _, _, length = head.partition(b"content-length:")
        stop = end + 4 + int(length.split(b"\r\n", 1)[0])
        if len(received) < stop:
            return
        self._received = b""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((int(received[9:12]), received[end + 4 : stop]))


async def ask_once(target: Target) -> str | None:
    """None when the answer is right, else what came instead. Raises OSError when nothing listens."""
    number = next(_numbers)
    _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", target.port)
    try:
        status, body = await connection.ask(target.request(number))
        return None if target.is_right(number, status, body) else f"{status} {body.decode()}"
    finally:
        connection.transport.close()


async def run_load(
    target: Target,
    callers: int,
    *,
    seconds: float | None = None,
    requests: int | None = None,
    spread_s: float = 0.0,
) -> Load:
    """Until the time is over or so many requests were begun; what is in flight then is not counted.

    `spread_s` lets the callers begin one after the other within that time, which is not measured: callers who
    all begin at the same instant come back at the same instant, for ever, when the model takes a fixed time.
    """
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    wrong: list[str] = []
    begun = itertools.count()
    total = [0]

    async def call(connection: _Connection, begins_after_s: float, since: float, until: float) -> None:
        await asyncio.sleep(begins_after_s)
        while time.perf_counter() < until and (requests is None or next(begun) < requests):
            number = next(_numbers)
            request = target.request(number)
            sent = time.perf_counter()
            try:
                status, body = await connection.ask(request)
            except ConnectionError as error:
                wrong.append(str(error))
                return
            answered = time.perf_counter()
            total[0] += 1
            if since <= answered <= until:
                latencies.append(answered - sent)
            if not target.is_right(number, status, body):
                wrong.append(f"{status} {body.decode(errors='replace')}")

    opened = await asyncio.gather(
        *(loop.create_connection(_Connection, "127.0.0.1", target.port) for _ in range(callers))
    )
    since = time.perf_counter() + spread_s
    until = float("inf") if seconds is None else since + seconds
    try:
        await asyncio.gather(
            *(
                call(connection, spread_s * index / callers, since, until)
                for index, (_, connection) in enumerate(opened)
            )
        )
    finally:
        for transport, _ in opened:
            transport.close()
    elapsed_s = seconds or time.perf_counter() - since
    return Load(sorted(latencies), elapsed_s, total[0], len(wrong), wrong[0][:500] if wrong else None)
