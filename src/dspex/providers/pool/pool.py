"""One pool: its workers, who gets which, and what happens to those that crash, hang, grow or age."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from zlib import crc32

import structlog

from dspex.configuration.pools import PoolSettings
from dspex.executions.ports import PoolView, WorkerView
from dspex.kit.errors import Exhausted
from dspex.providers.pool.nursery import Nursery
from dspex.providers.pool.worker import Worker, WorkerLost

log = structlog.get_logger(__name__)

BEAT_S, MISSES = 2.0, 3
# Between attempts to replace a worker that does not come up.
RETRY_S = (0.1, 0.5, 2.0, 10.0)
# How long a worker that is being replaced may finish what it has.
LEAVE_S = 3600.0
# Of the executions that were in a worker when it ended, in the log.
MOST_NAMED = 20
# Who waits: the session it has to do with, and where its worker comes.
_Place = tuple[str | None, "asyncio.Future[Worker]"]


class Pool:
    """Open until `aclose`. All state is of this node."""

    def __init__(self, name: str, settings: PoolSettings, roots: Sequence[str]) -> None:
        self.name = name
        self.settings = settings
        self._roots = roots
        self._nursery = Nursery(name, settings, roots, self._nursery_gone)
        self._workers: list[Worker] = []
        self._waiting: list[_Place] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._apart = 0
        self.restarts = 0

    async def start(self) -> None:
        """Returns when the first worker serves. Raises Unavailable."""
        await self._nursery.start()
        if self.settings.workers:
            self._welcome(await self._born())
        for _ in range(self.settings.workers - 1):
            self._keep(self._bear())

    def workers(self) -> Sequence[Worker]:
        return tuple(self._workers)

    def view(self) -> PoolView:
        now = time.monotonic()
        workers = [
            WorkerView(
                one.process.pid,
                one.state,
                one.in_flight,
                one.served,
                round(now - one.born, 1),
                one.memory_bytes,
                one.degraded,
            )
            for one in self._workers
        ]
        return PoolView(self.name, True, workers, self.settings.workers, len(self._waiting), self.restarts)

    @property
    def busy(self) -> bool:
        """Whether anybody is in it or waits for it."""
        return bool(self._waiting or self._apart) or any(one.in_flight for one in self._workers)

    @asynccontextmanager
    async def lease(self, session_id: str | None = None) -> AsyncIterator[Worker]:
        """A place in a worker. Raises Exhausted when the queue is full or the wait too long."""
        session = session_id if self.settings.affinity != "none" else None
        if self._waiting:
            # After this nobody who waits could have a worker that is free.
            self._serve_waiting()
        worker = self._free(session)
        if worker is None:
            worker = await self._wait(session)
        else:
            worker.in_flight += 1
        try:
            yield worker
        finally:
            worker.in_flight -= 1
            worker.served += 1
            self._serve_waiting()

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[Worker]:
        """A worker for one use, so that whatever it does harms nobody. Raises Unavailable."""
        self._apart += 1
        try:
            worker = await self._born()
            try:
                yield worker
            finally:
                self._nursery.kill(worker.process)
                await worker.aclose()
        finally:
            self._apart -= 1

    def replace(self, worker: Worker, reason: str) -> None:
        """Gives it no more work and puts another in its place; it finishes what it has."""
        if not worker.leaving:
            worker.leaving = True
            worker.degraded = reason
            self._keep(self._succeed(worker, reason))

    def end(self, worker: Worker, reason: str) -> None:
        """Kills a worker; it is replaced when its process is gone."""
        worker.degraded = worker.degraded or reason
        self._nursery.kill(worker.process)

    async def aclose(self) -> None:
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, waiter in self._waiting:
            waiter.cancel()
        await self._nursery.aclose()
        for worker in self._workers:
            await worker.aclose()

    # Who gets which worker

    def _free(self, session: str | None) -> Worker | None:
        ready = [one for one in self._workers if one.state in ("ready", "busy")]
        if session is not None and ready:
            chosen = ready[crc32(session.encode()) % len(ready)]
            if chosen.state == "ready" or self.settings.affinity == "strict":
                return chosen if chosen.state == "ready" else None
        free = [one for one in ready if one.state == "ready"]
        return min(free, key=lambda one: one.in_flight, default=None)

    async def _wait(self, session: str | None) -> Worker:
        limit = self.settings.queue
        if len(self._waiting) >= limit:
            raise Exhausted(
                f"The pool {self.name!r} is full: {len(self._waiting)} executions wait for a worker. Send less, or "
                f"raise `workers` of pools.{self.name}.",
                code="pool_full",
                retry_after=1,
            )
        place: _Place = (session, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self.settings.queue_timeout_s):
                given = await place[1]
        except TimeoutError:
            if not _was_given(place):
                raise Exhausted(
                    f"No worker of the pool {self.name!r} was free within {self.settings.queue_timeout_s:g} s. Send "
                    f"less, or raise `workers` of pools.{self.name}.",
                    code="pool_full",
                    retry_after=1,
                ) from None
            # It came at the very moment.
            given = place[1].result()
        except asyncio.CancelledError:
            if _was_given(place):
                place[1].result().in_flight -= 1
                self._serve_waiting()
            raise
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
        return given

    def _serve_waiting(self) -> None:
        for place in [*self._waiting]:
            session, waiter = place
            worker = self._free(session)
            if worker is None:
                if session is None:
                    return
                continue
            self._waiting.remove(place)
            if not waiter.done():
                worker.in_flight += 1
                waiter.set_result(worker)

    # The lives of workers

    async def _born(self) -> Worker:
        process = await self._nursery.spawn()
        worker = Worker(process, self.settings.concurrency, time.monotonic())
        try:
            await worker.greet()
        except BaseException:
            self._nursery.kill(process)
            await worker.aclose()
            raise
        return worker

    async def _bear(self) -> None:
        """A new worker, however long it takes."""
        for attempt in range(1_000_000):
            try:
                worker = await self._born()
                break
            except Exception as error:
                # Whatever it was, no descriptors left for instance: nobody else would try again.
                log.warning("worker_not_started", pool=self.name, reason=str(error) or repr(error))
                await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
        self._welcome(worker)

    def _welcome(self, worker: Worker) -> None:
        self._workers.append(worker)
        self._keep(self._accompany(worker))
        self._serve_waiting()

    async def _accompany(self, worker: Worker) -> None:
        """Beats until the worker has ended, and sees to it that there is another."""
        missed = 0
        while not worker.process.ended.done():
            # A beat that was missed has taken its time.
            await asyncio.wait([worker.process.ended], timeout=0 if missed else BEAT_S)
            if worker.process.ended.done():
                break
            try:
                beat = await worker.beat(BEAT_S)
            except WorkerLost:
                missed += 1
                if missed >= MISSES:
                    log.error("worker_stuck", pool=self.name, pid=worker.process.pid)
                    self.end(worker, "it did not answer")
                continue
            missed = 0
            worker.memory_bytes = beat.memory_bytes
            if (reason := self._worn(worker, beat.stuck, beat.memory_bytes)) is not None:
                self.replace(worker, reason)
        ended = await worker.process.ended
        planned = worker.leaving
        worker.leaving = True
        self._workers.remove(worker)
        lost = list(worker.executions if worker.lost is None else worker.lost)
        await worker.aclose()
        if lost or not planned:
            log.warning(
                "worker_ended",
                pool=self.name,
                pid=worker.process.pid,
                status=ended.status,
                reason=ended.reason,
                executions=lost[:MOST_NAMED],
                execution_count=len(lost),
            )
        if not planned:
            self.restarts += 1
            if ended.reason != "nursery":
                self._keep(self._bear())

    def _worn(self, worker: Worker, stuck: int, memory_bytes: int) -> str | None:
        if worker.leaving:
            return None
        if stuck:
            return "threads of it do not end"
        if memory_bytes > self.settings.recycled_mb * 1024 * 1024:
            return "memory"
        if worker.served >= self.settings.recycle_requests:
            return "requests"
        return "age" if time.monotonic() - worker.born > self.settings.recycle_s else None

    async def _succeed(self, worker: Worker, reason: str) -> None:
        await self._bear()
        log.info("worker_recycled", pool=self.name, pid=worker.process.pid, reason=reason)
        deadline = time.monotonic() + LEAVE_S
        while worker.in_flight and not worker.process.ended.done() and time.monotonic() < deadline:
            await asyncio.wait([worker.process.ended], timeout=0.1)
        self._nursery.kill(worker.process)

    def _nursery_gone(self) -> None:
        if not self._closing:
            log.error("nursery_ended", pool=self.name)
            self._keep(self._restart())

    async def _restart(self) -> None:
        await self._nursery.aclose()
        for attempt in range(1_000_000):
            self._nursery = Nursery(self.name, self.settings, self._roots, self._nursery_gone)
            try:
                await self._nursery.start()
                break
            except Exception as error:
                await self._nursery.aclose()
                log.error("nursery_not_started", pool=self.name, reason=str(error) or repr(error))
                await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
        for _ in range(self.settings.workers):
            self._keep(self._bear())

    def _keep(self, life: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        # In no request's context: what is logged of a worker belongs to none.
        task = asyncio.create_task(life, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("pool_task_failed", pool=self.name, exc_info=error)


def _was_given(place: _Place) -> bool:
    return place[1].done() and not place[1].cancelled()
