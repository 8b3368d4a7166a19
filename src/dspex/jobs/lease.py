"""Whether this worker may still take its jobs for its own: by its own heartbeat."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError

log = structlog.get_logger(__name__)
BEAT_S = 2.0
# Others take a node for dead after 20 s; by then it has to know itself.
HOLDS_S = 15.0


class Lease:
    """Beats, and after each beat that came late has it looked at what is still ours.

    A process that was stopped for minutes and goes on knows by its clock that it may have lost everything.
    """

    def __init__(self, beat: Callable[[], Awaitable[None]], clock: Clock) -> None:
        self._beat = beat
        self._clock = clock
        self._since = clock.monotonic()
        self._sure = asyncio.Event()
        self.look_after: Callable[[], Awaitable[None]] = _nothing

    async def held(self) -> None:
        """Returns while the last heartbeat is fresh, and waits for the next one otherwise."""
        while self._clock.monotonic() - self._since > HOLDS_S:
            self._sure.clear()
            await self._sure.wait()

    async def beat(self) -> None:
        """Raises DspexError when it could not be written."""
        before = self._clock.monotonic()
        await self._beat()
        await self.look_after()
        self._since = before
        self._sure.set()

    async def beat_for_ever(self) -> None:
        while True:
            try:
                await self.beat()
            except DspexError as error:
                log.warning("heartbeat_failed", reason=error.message)
            except Exception:
                # A defect must not silence the worker, or others take its jobs.
                log.exception("heartbeat_failed")
            await asyncio.sleep(BEAT_S)


async def _nothing() -> None:
    """Before there is anything to look after."""
