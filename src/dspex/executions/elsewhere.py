"""Executions that run in other processes, followed from this one: it says so to them, and waits for the end."""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog
from msgspec import Struct

from dspex.access.records import Principal
from dspex.executions.idempotency import UNFINISHED
from dspex.executions.ports import ExecutionReader
from dspex.executions.records import Execution
from dspex.executions.streams import FOLLOWED, Ended, Stream, told_elsewhere
from dspex.kit.errors import DspexError, Unavailable
from dspex.kit.signals import Signals

log = structlog.get_logger(__name__)
# Seconds between two looks at the records, and between two signals that they are followed.
LOOK_S = 1.0
MOST_FOLLOWED = 100
Ending = Callable[[Execution | None], Ended]


class _Followed(Struct, frozen=True):
    stream: Stream
    ending: Ending


class Elsewhere:
    """One for each process. What is followed is told to all processes: the one that runs it goes on with it."""

    def __init__(self, executions: ExecutionReader, signals: Signals) -> None:
        self._executions = executions
        self._signals = signals
        self._followed: dict[tuple[str, str], _Followed] = {}
        self._watching: asyncio.Task[None] | None = None

    async def follow(self, principal: Principal, execution: Execution, ending: Ending) -> Stream:
        """A stream that will have its end alone, for as long as somebody reads it; read it at once.

        `ending` makes the end of the final record, or of None when the record was deleted. Raises Unavailable:
        running_elsewhere when MOST_FOLLOWED others are followed here, and when the signal can't be sent.
        """
        place = (execution.project, execution.id)
        self._check_room(place)
        # At once: its process gives it up soon.
        await self._signals.send(FOLLOWED, {execution.id: execution.project})
        self._check_room(place)
        if place not in self._followed:
            stream = told_elsewhere(principal, execution.id)
            stream.when_abandoned(partial(self._followed.pop, place, None), 0.0)
            self._followed[place] = _Followed(stream, ending)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        return self._followed[place].stream

    def _check_room(self, place: tuple[str, str]) -> None:
        if place not in self._followed and len(self._followed) >= MOST_FOLLOWED:
            raise Unavailable(
                "This execution runs in another process of this service, and too many such are followed here "
                "already. Ask again: its result can be had here as soon as it is over.",
                code="running_elsewhere",
                retry_after=1,
            )

    async def _watch(self) -> None:
        away = False
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._followed:
                return
            try:
                await self._look()
                away = False
            except DspexError as error:
                # Readers wait on, as long as any reader may.
                if not away:
                    away = True
                    log.warning("streams_not_followed", reason=error.message)

    async def _look(self) -> None:
        await self._signals.send(
            FOLLOWED, {execution_id: project for project, execution_id in self._followed}
        )
        for place, followed in list(self._followed.items()):
            found = await self._executions.get(*place)
            if found is None or found.status not in UNFINISHED:
                followed.stream.finish(followed.ending(found))
                self._followed.pop(place, None)
