"""Group commit: one writer takes every record, and commits what is queued as soon as the last commit ended.

No timer: alone, a record waits for its own commit only; under load, batches grow by themselves.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from dspex.executions.records import Execution
from dspex.kit.errors import DspexError, Internal, Unavailable
from dspex.storage.dialects import BatchWriter, Dialect, Durability, Row
from dspex.storage.stores.execution_rows import execution_row
from dspex.storage.tables import executions

log = structlog.get_logger(__name__)
BATCH = 256
QUEUE = 4096


@dataclass(slots=True)
class _Waiting:
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
    """`executions.ports.Recorder`. `relaxed` acknowledges on queueing: a kill loses what is queued."""

    def __init__(self, dialect: Dialect, durability: Durability) -> None:
        self._dialect = dialect
        self._relaxed = durability == "relaxed"
        self._writer: BatchWriter = dialect.batch_writer(executions)
        self._queue: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def record(self, execution: Execution) -> None:
        """Returns after the commit (relaxed: at once). Raises Unavailable when it can't be stored now.

        A queued record is committed even when its caller is cancelled meanwhile; the cancellation is passed
        on only after that, so that whoever sees it finds in the store what became of the record.
        """
        if self._closed:
            raise Unavailable("This node is shutting down; ask another one.", code="recorder_closed")
        if len(self._queue) >= QUEUE:
            raise Unavailable(
                f"{QUEUE} records wait for the database, which is too slow for the load; try again later.",
                code="recorder_full",
                retry_after=1,
            )
        row = execution_row(execution, self._dialect.moment)
        done = None if self._relaxed else asyncio.get_running_loop().create_future()
        waiting = _Waiting(row, done)
        self._queue.append(waiting)
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        if done is not None:
            try:
                await done
            except asyncio.CancelledError:
                await self._settled(waiting)
                raise

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
        if self._task is not None:
            await asyncio.wait([self._task])
        await self._writer.close()

    async def _drain(self) -> None:
        try:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                await self._commit(batch)
        finally:
            self._task = None

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        try:
            await self._writer.write([one.row for one in batch])
        except Unavailable as error:
            # The database is away: those who queued meanwhile would only wait for the same answer.
            _fail([*batch, *self._queue], error)
            self._queue.clear()
        except Exception as error:
            if len(batch) == 1:
                log.error("execution_refused", execution=batch[0].row[1], error=repr(error))
                refused = "The database refused the record of this execution; the log says why."
                _fail(batch, Internal(refused, code="record_refused"))
                return
            # One bad row must not take its neighbours along.
            for one in batch:
                await self._commit([one])
        else:
            for one in batch:
                one.settle()


def _fail(records: Sequence[_Waiting], error: DspexError) -> None:
    lost = 0
    for one in records:
        lost += one.done is None
        one.settle(error)
    if lost:
        log.error("acknowledged_executions_lost", executions=lost, reason=error.message)
