"""What gathers in memory is written every so often, beside the work that it comes of."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from dspex.kit.finishing import finished

log = structlog.get_logger(__name__)


class Flushing:
    """Calls `write` every so many seconds until it is closed. What it has begun to write is never given up half way:

    what was taken out to be written would be lost with it, and the connection as well. A `write` that fails has kept
    what it took, for the next time.
    """

    def __init__(self, write: Callable[[], Awaitable[object]], every_s: float) -> None:
        self._write = write
        self._every_s = every_s
        self._soon = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._write_for_ever())

    def soon(self) -> None:
        """Writes now instead of at its time."""
        self._soon.set()

    async def aclose(self) -> None:
        """Writes once more. Raises what `write` raises then; whoever is cancelled meanwhile waits all the same."""
        self._closed = True
        self._soon.set()
        await finished(self._ended())

    async def _ended(self) -> None:
        if self._task is not None:
            await self._task

    async def _write_for_ever(self) -> None:
        while not self._closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._soon.wait()
            self._soon.clear()
            try:
                await self._write()
            except Exception:
                log.exception("not_written")
        await self._write()
