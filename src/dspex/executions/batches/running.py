"""Batches as jobs: so many items at once, each an execution of its own."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from dspex.access.records import Principal
from dspex.access.service import Keys
from dspex.configuration.caching import CachePolicy
from dspex.executions.background.rules import LEAST_WAIT_S, snooze_s
from dspex.executions.background.running import LANE
from dspex.executions.batches.ports import BatchStore
from dspex.executions.batches.records import BatchItem, ItemState
from dspex.executions.batches.service import progress_of
from dspex.executions.catalog import Runnable
from dspex.executions.ports import Recorder
from dspex.executions.predictions import Predictions
from dspex.executions.records import Execution
from dspex.executions.requests import PredictionRequest
from dspex.jobs.ports import Run
from dspex.jobs.records import Completed, Job, Outcome
from dspex.jobs.rules import ATTEMPTS
from dspex.kit import json
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Exhausted, Unavailable
from dspex.kit.finishing import finished
from dspex.kit.flushing import Flushing
from dspex.kit.records import asdict
from dspex.kit.tracing import parse_traceparent

FLUSH_S = 0.5
FLUSH = 200
PAGE = 200
# A key that is revoked meanwhile, or an archived program, ends the batch this much later at the latest.
FRESH_S = 10.0
# How long a record waits between two tries while the database is away.
AGAIN_S = 0.5
DATABASE_AWAY = "database_unavailable"
# How often an item waits for a limit that passes.
SNOOZES = 100


class BatchHandler:
    def __init__(
        self, predictions: Predictions, store: BatchStore, recorder: Recorder, keys: Keys, clock: Clock
    ) -> None:
        self.predictions = predictions
        self.store = store
        self.recorder = recorder
        self.keys = keys
        self.clock = clock

    async def run(self, run: Run) -> Outcome:
        """Goes on where it was left. Raises Unauthenticated or Forbidden for a key that may no more."""
        counts = await self.store.counts(run.job.project, run.job.id)
        running = _Batch(self, run, counts.get("completed", 0), counts.get("failed", 0), sum(counts.values()))
        await running.to_the_end()
        if run.stopping and not running.over:
            raise asyncio.CancelledError
        return Completed({"completed": running.completed, "failed": running.failed})


class _Standing(Struct, frozen=True):
    """What holds for all items, as it was read at a monotonic time."""

    principal: Principal
    runnable: Runnable
    at: float


class _Batch:
    """One stretch of a batch, until it ends or is stopped."""

    def __init__(self, own: BatchHandler, run: Run, completed: int, failed: int, items: int) -> None:
        self._own = own
        self._run = run
        self._job: Job = run.job
        self.completed = completed
        self.failed = failed
        self._items = items
        self._ended: list[BatchItem] = []
        self._flushing = Flushing(self._flush, FLUSH_S)
        self._standing: _Standing | None = None
        cache = self._job.payload["cache"]
        self._cache = None if cache is None else CachePolicy(**cache)

    @property
    def over(self) -> bool:
        return self.completed + self.failed >= self._items

    async def to_the_end(self) -> None:
        items: asyncio.Queue[BatchItem | None] = asyncio.Queue(maxsize=PAGE)
        concurrency: int = self._job.payload["concurrency"]
        self._flushing.start()
        try:
            await self._look()
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(self._work(items))
                async for item in self._open():
                    if self._run.stopping:
                        break
                    await items.put(item)
                for _ in range(concurrency):
                    await items.put(None)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            # Not to be cancelled once more: what is done is told.
            await finished(self._write_all())

    async def _open(self) -> AsyncIterator[BatchItem]:
        """Items that no run of the batch has ended, as far as is known; those that ended unnoticed are settled."""
        after = 0
        while page := await self._own.store.open(self._job.project, self._job.id, after=after, limit=PAGE):
            for item, status in page:
                if status in ("completed", "failed"):
                    self._settle(item, status)
                else:
                    yield item
            after = page[-1][0].position

    async def _work(self, items: "asyncio.Queue[BatchItem | None]") -> None:
        while (item := await items.get()) is not None:
            if self._run.stopping:
                # The rest is somebody else's; it is only taken out of the way.
                continue
            await self._run.own()
            await self._do(item, await self._look())

    async def _look(self) -> _Standing:
        """Raises what ends the whole batch: its key or its program is gone."""
        now, known = self._own.clock.monotonic(), self._standing
        if known is not None and now - known.at <= FRESH_S:
            return known
        job = self._job
        try:
            principal = await self._own.keys.principal(job.author, job.project, "programs:run")
            runnable = await self._own.predictions.runnable(
                job.project, job.subject or "", version=job.payload["version"]
            )
        except Unavailable:
            if known is None:
                raise
            return known
        self._standing = _Standing(principal, runnable, now)
        return self._standing

    async def _do(self, item: BatchItem, standing: _Standing) -> None:
        tries = snoozes = 0
        while True:
            keeper = _Keeper(self._own.recorder, self._run, last=tries >= ATTEMPTS or snoozes >= SNOOZES)
            try:
                execution = await self._predict(item, standing, keeper)
            except (Exhausted, Unavailable) as error:
                if error.code != DATABASE_AWAY:
                    # Nothing was asked for, and that the database is away is nobody's failure.
                    tries += 1
                if tries >= ATTEMPTS:
                    self._refuse(item, error)
                    return
                await asyncio.sleep(max(2.0**tries, error.retry_after or 0.0))
                continue
            except DspexError as error:
                self._refuse(item, error)
                return
            if keeper.kept:
                self._settle(item, "completed" if execution.error is None else "failed")
                return
            snoozes += 1
            await asyncio.sleep(snooze_s(execution.error) or LEAST_WAIT_S)

    async def _predict(self, item: BatchItem, standing: _Standing, keeper: "_Keeper") -> Execution:
        payload = self._job.payload
        trace = payload["trace"]
        request = PredictionRequest(
            principal=standing.principal,
            request_id=self._job.id,
            inputs=item.inputs,
            size=len(json.dumps(item.inputs)),
            parameters=payload["parameters"],
            metadata=payload["metadata"],
            timeout_s=payload["timeout_s"],
            execution_id=item.execution_id,
            cache=self._cache,
            trace=None if trace is None else parse_traceparent(trace),
            lane=LANE,
            keeper=keeper,
        )
        return await self._own.predictions.run(standing.runnable, request)

    def _refuse(self, item: BatchItem, error: DspexError) -> None:
        """Nothing was run for it."""
        told: dict[str, Any] = {"kind": error.kind, "code": error.code, "message": error.message}
        told["problems"] = [asdict(problem) for problem in error.problems]
        self._settle(replace(item, error=told), "failed")

    def _settle(self, item: BatchItem, state: ItemState) -> None:
        self._ended.append(replace(item, state=state, inputs={}))
        if state == "completed":
            self.completed += 1
        else:
            self.failed += 1
        if len(self._ended) >= FLUSH:
            self._flushing.soon()

    async def _write_all(self) -> None:
        """However long the database is away."""
        await self._flushing.aclose()
        while self._ended:
            await asyncio.sleep(FLUSH_S)
            await self._flush()

    async def _flush(self) -> None:
        """What can't be written now is written with the next ones: until then the executions tell."""
        ended, self._ended = self._ended, []
        if not ended:
            return
        progress = progress_of(self._items, self.completed, self.failed)
        try:
            await self._own.store.settle(self._job, ended, progress)
        except Exception as error:
            self._ended = ended + self._ended
            if not isinstance(error, Unavailable):
                raise


class _Keeper:
    """`executions.ports.Keeper` of an item: what failed for a reason that passes is not over, until the `last` try."""

    cap = None

    def __init__(self, recorder: Recorder, run: Run, *, last: bool) -> None:
        self._recorder = recorder
        self._run = run
        self._last = last
        self.kept = False

    async def own(self) -> None:
        await self._run.own()

    async def keep(self, execution: Execution) -> Execution | None:
        if execution.status == "cancelled" and not self._run.cancelled:
            # The worker stops: another one does it.
            return None
        if not self._last and snooze_s(execution.error) is not None:
            return None
        self.kept = True
        while True:
            try:
                await self._recorder.record(execution, certain=True)
            except Unavailable:
                # Its model is paid: without a record it would be asked once more.
                await asyncio.sleep(AGAIN_S)
                await self._run.own()
            else:
                return execution
