"""Group commit: one writer takes every record, and commits what is queued as soon as the last commit ended.

No timer where somebody waits: alone, a record waits for its own commit only; under load, batches grow by themselves.
What is recorded behind its answer is gathered for some milliseconds, since a commit costs more than a row.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from datetime import datetime
from typing import Any

import structlog
from msgspec import Struct

from dspex.executions.records import Execution
from dspex.kit.errors import DspexError, Internal, Unavailable
from dspex.storage.batches import BatchWriter, Durability, Row
from dspex.storage.stores.execution_rows import execution_row

log = structlog.get_logger(__name__)
BATCH = 256
QUEUE = 4096
# How long an acknowledged record waits for a place in the queue, and for the database between two tries.
ROOM_S = 5.0
AGAIN_S = 0.25
# How long a failed commit speaks for what would come after it.
AWAY_S = 1.0
GATHER_S = 0.02


class _Waiting(Struct):
    """`done` is None when nobody waits: the record was acknowledged before its commit."""

    row: Row
    done: "asyncio.Future[None] | None"
    decided: bool = False

    def settle(self, error: DspexError | None = None) -> None:
        self.decided = True
        if self.done is None or self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            # One for each waiter: an exception raised in several tasks would collect all their tracebacks.
            self.done.set_exception(
                type(error)(error.message, code=error.code, retry_after=error.retry_after)
            )


class ExecutionWriter:
    """`executions.ports.Recorder`. `relaxed` acknowledges on queueing: a kill loses what is queued.

    Acknowledged records stay queued while the database is away; the others fail at once.
    """

    def __init__(
        self, writer: BatchWriter, moment: Callable[[datetime], Any], durability: Durability
    ) -> None:
        """`moment` makes a time what the driver takes."""
        self._writer = writer
        self._moment = moment
        self._relaxed = durability == "relaxed"
        self._queue: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        # Somebody waits, or there is enough for a batch.
        self._urgent = asyncio.Event()
        self._closed = False
        self._failure: Unavailable | None = None
        self._failed_until = 0.0

    @property
    def waiting(self) -> int:
        """Records that wait to be committed."""
        return len(self._queue)

    def check(self) -> None:
        """Raises what the last commit failed with, for a second after it: then somebody has to try again."""
        failure = self._failure
        if failure is not None and not self._relaxed and time.monotonic() < self._failed_until:
            raise type(failure)(failure.message, code=failure.code, retry_after=failure.retry_after)

    async def record(self, execution: Execution, *, behind: bool = False, certain: bool = False) -> None:
        """Returns after the commit (relaxed: at once, unless it has to be `certain`).

        Raises Unavailable when it can't be stored now. With `behind` it returns at once as well, but waits some
        seconds for a place in a full queue. A queued record is committed even when its caller is cancelled
        meanwhile; the cancellation is passed on only after that, so that whoever sees it finds in the store what
        became of the record.
        """
        if self._closed:
            raise Unavailable("This node is shutting down; ask another one.", code="recorder_closed")
        if behind and len(self._queue) >= QUEUE:
            await self._wait_for_room()
        if len(self._queue) >= QUEUE:
            raise Unavailable(
                f"{QUEUE} records wait for the database, which is too slow for the load; try again later.",
                code="recorder_full",
                retry_after=1,
            )
        row = execution_row(execution, self._moment)
        done = (
            None if behind or (self._relaxed and not certain) else asyncio.get_running_loop().create_future()
        )
        waiting = _Waiting(row, done)
        self._queue.append(waiting)
        if not behind or len(self._queue) >= BATCH:
            self._urgent.set()
        if self._task is None:
            # It works for all that come: its log lines are not those of the request that came first.
            self._task = asyncio.create_task(self._drain(), context=Context())
        if done is not None:
            try:
                await done
            except asyncio.CancelledError:
                await self._settled(waiting)
                raise

    async def _wait_for_room(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(ROOM_S):
                while len(self._queue) >= QUEUE:
                    self._urgent.set()
                    self._room.clear()
                    await self._room.wait()

    async def _settled(self, waiting: _Waiting) -> None:
        """Returns when the fate of the record is decided, however often its caller is cancelled."""
        # The first future died with the cancellation; this one takes its place.
        waiting.done = asyncio.get_running_loop().create_future()
        while not waiting.decided and (writer := self._task) is not None and not writer.done():
            try:
                await asyncio.wait([waiting.done, writer], return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                continue

    async def close(self) -> None:
        """Commits what is queued, then lets the connection go."""
        self._closed = True
        self._urgent.set()
        if self._task is not None:
            await asyncio.wait([self._task])
        await self._writer.close()

    async def _drain(self) -> None:
        try:
            while self._queue:
                await self._gather()
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                self._room.set()
                if not await self._commit(batch):
                    await asyncio.sleep(AGAIN_S)
        finally:
            self._task = None

    async def _gather(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._urgent.wait()
        if len(self._queue) <= BATCH and not self._closed:
            self._urgent.clear()

    async def _commit(self, batch: Sequence[_Waiting]) -> bool:
        """False when acknowledged records are queued again, since the database is away."""
        try:
            await self._writer.write([one.row for one in batch])
        except Unavailable as error:
            self._failure, self._failed_until = error, time.monotonic() + AWAY_S
            # The database is away: those who queued meanwhile would only wait for the same answer.
            waiting = [*batch, *self._queue]
            self._queue.clear()
            if not self._closed:
                self._queue.extend(one for one in waiting if one.done is None)
                waiting = [one for one in waiting if one.done is not None]
            _fail(waiting, error)
            return not self._queue
        except Exception as error:
            if len(batch) == 1:
                log.error("execution_refused", execution=batch[0].row[1], error=repr(error))
                refused = "The database refused the record of this execution; the log says why."
                _fail(batch, Internal(refused, code="record_refused"))
                return True
            # One bad row must not take its neighbours along.
            return all([await self._commit([one]) for one in batch])
        self._failure = None
        for one in batch:
            one.settle()
        return True


def _fail(records: Sequence[_Waiting], error: DspexError) -> None:
    lost = 0
    for one in records:
        lost += one.done is None
        one.settle(error)
    if lost:
        log.error("acknowledged_executions_lost", executions=lost, reason=error.message)
