"""A worker: takes what the engine hands it, does it, and writes down what became of it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import structlog

from dspex.jobs import rules
from dspex.jobs.facts import JobChanged
from dspex.jobs.lease import Lease
from dspex.jobs.ports import Changes, Handler, JobStore
from dspex.jobs.records import Again, Failed, Job, JobError, Outcome
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Exhausted, Unavailable
from dspex.kit.facts import Facts

log = structlog.get_logger(__name__)
T = TypeVar("T")
AGAIN_S = 0.5
STOPPING = "the worker stops"
ASKED = "somebody asked for its end"
LOST = "the job is somebody else's"
DATABASE_AWAY = "database_unavailable"
DEFECT = JobError(
    "internal", "internal", "DSPex failed on this job; the worker's log has the details under its id."
)


class _Run:
    """`jobs.ports.Run`."""

    job: Job

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self.cancelled = False
        self.lost = False
        self.settled = False
        self.at_once = False
        self.task: asyncio.Task[Outcome] | None = None
        self._told = False

    @property
    def stopping(self) -> bool:
        return self._worker.stopping

    def stop_at_once(self) -> None:
        self.at_once = True
        if self.stopping:
            self.cancel(STOPPING)

    async def own(self) -> None:
        await self._worker.lease.held()

    async def settle(self, outcome: Outcome | None, changes: Changes | None = None) -> Job | None:
        self.settled = True
        return await self._worker.settle(self, outcome, changes)

    def cancel(self, reason: str) -> None:
        """Once and no more: a second time would break into what the handler does about the first."""
        if self.task is not None and not self._told:
            self._told = True
            self.task.cancel(reason)


class Worker:
    """`take` is called by the engine, once for each turn of a job; the engine keeps to the queues' limits."""

    def __init__(
        self,
        store: JobStore,
        changes: Mapping[str, Changes],
        handlers: Mapping[str, Handler],
        lease: Lease,
        clock: Clock,
        facts: Facts,
        node: str,
    ) -> None:
        self.lease = lease
        self._store = store
        self._changes = changes
        self.handlers = handlers
        self._clock = clock
        self._facts = facts
        self._node = node
        self.stopping = False
        self._runs: dict[tuple[str, str], _Run] = {}
        self.woken: Callable[[], None] = lambda: None

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(self.handlers)

    @property
    def under_way(self) -> list[str]:
        """The ids of its jobs."""
        return [job_id for _, job_id in list(self._runs)]

    async def take(self, project: str, job_id: str, turn: int) -> None:
        """Runs a job to its end or its next turn. Returns without doing anything when it is not its turn."""
        place = (project, job_id)
        while place in self._runs:  # noqa: ASYNC110
            # Handed to us again while we let go of it.
            await asyncio.sleep(0.01)
        run = self._runs[place] = _Run(self)
        try:
            job = await self._patiently(lambda: self._store.get(project, job_id))
            if job is not None and job.turn == turn and job.state in ("queued", "running"):
                await self._begin(run, job)
        finally:
            del self._runs[place]

    async def _begin(self, run: _Run, job: Job) -> None:
        if job.state == "queued" and (
            self.stopping or job.queue in await self._patiently(self._store.paused)
        ):
            await self._patiently(lambda: self._change(job, rules.unbegun(job)))
            return
        run.job = begun = rules.begun(job, self._node, self._clock.now())
        if await self._patiently(lambda: self._change(job, begun)):
            self._facts.announce(JobChanged(begun))
            if begun.state == "running":
                await self._do(run)

    async def _do(self, run: _Run) -> None:
        job = run.job
        handler = self.handlers.get(job.kind)
        if handler is None:
            await run.settle(
                Failed(JobError("invalid", "unknown_kind", f"No worker does {job.kind!r} jobs."))
            )
            return
        run.task = asyncio.create_task(self._handle(handler, run))
        if run.lost:
            run.cancel(LOST)
        elif run.cancelled:
            run.cancel(ASKED)
        elif await self._patiently(lambda: self._asked(job)):
            # Between reading the job and beginning it.
            run.cancelled = True
            run.cancel(ASKED)
        await asyncio.wait([run.task])
        if run.settled or run.lost:
            return
        await run.settle(None if run.task.cancelled() else run.task.result())

    async def _handle(self, handler: Handler, run: _Run) -> Outcome:
        try:
            return await handler.run(run)
        except (Exhausted, Unavailable) as error:
            told = rules.error_of(error)
            if isinstance(error, Exhausted):
                return Again(error.retry_after or rules.SNOOZE_S, told, counted=False)
            # Of our own database nothing is said about the job, and its next turn waits for it.
            counted = error.code != DATABASE_AWAY
            return Again(max(rules.backoff_s(run.job.attempts), error.retry_after or 0.0), told, counted)
        except DspexError as error:
            return Failed(rules.error_of(error))
        except Exception:
            log.exception("job_failed", job=run.job.id, kind=run.job.kind)
            return Failed(DEFECT)

    async def _asked(self, job: Job) -> bool:
        now = await self._store.get(job.project, job.id)
        return now is not None and now.cancel_asked

    async def settle(self, run: _Run, outcome: Outcome | None, changes: Changes | None) -> Job | None:
        if run.lost:
            return None
        at = self._clock.now()
        if outcome is not None:
            after = rules.settled(run.job, outcome, at)
        else:
            after = rules.cancelled(run.job, at) if run.cancelled else rules.given_back(run.job, at)
        done = await self._patiently(lambda: self._change(run.job, after, changes))
        if not done:
            log.warning("job_was_taken_over", job=run.job.id, kind=run.job.kind)
            return None
        if after.state == "failed":
            reason = after.error.message if after.error else None
            log.warning(
                "job_ended_badly", job=after.id, kind=after.kind, attempts=after.attempts, reason=reason
            )
        self._facts.announce(JobChanged(after))
        self.woken()
        return after

    async def _change(self, before: Job, after: Job, changes: Changes | None = None) -> bool:
        notice = rules.notice_of(after, self._clock.now())
        way = changes or self._changes.get(before.kind, self._store)
        return await way.change(before, after, [] if notice is None else [notice])

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """However long the database is away: the job is ours until somebody took it over."""
        while True:
            try:
                return await work()
            except Unavailable as error:
                log.warning("job_waits_for_the_database", reason=error.message)
                await asyncio.sleep(AGAIN_S)

    def cancel(self, project: str, job_id: str) -> None:
        """If it runs here."""
        run = self._runs.get((project, job_id))
        if run is not None:
            run.cancelled = True
            run.cancel(ASKED)

    def let_go(self, project: str, job_id: str) -> None:
        """Of a job that was paused, if it runs here."""
        run = self._runs.get((project, job_id))
        if run is not None and not run.settled:
            run.lost = True
            run.cancel(LOST)

    async def look_after(self) -> None:
        """Lets go of jobs that were given to others while this worker was thought dead, and gives back those that

        it has without doing them. Raises Unavailable.
        """
        before = dict(self._runs)
        running = {(one.project, one.id): one for one in await self._store.running()}
        for place, run in before.items():
            if run.task is None or run.settled or self._runs.get(place) is not run:
                continue
            now = running.get(place)
            if now is None or (now.turn, now.attempts) != (run.job.turn, run.job.attempts):
                run.lost = True
                run.cancel(LOST)
            elif now.cancel_asked and not run.cancelled:
                self.cancel(*place)
        for place, job in running.items():
            if job.node == self._node and place not in before and place not in self._runs:
                await self._change(job, rules.lost(job, self._clock.now()))
                self.woken()

    async def stop(self, within_s: float) -> None:
        """Takes nothing more; what does not end in time is given back, and at once what asked for that."""
        self.stopping = True
        for run in list(self._runs.values()):
            if run.at_once:
                run.cancel(STOPPING)
        runs = [run.task for run in self._runs.values() if run.task is not None]
        if runs:
            await asyncio.wait(runs, timeout=within_s)
        for run in list(self._runs.values()):
            run.cancel(STOPPING)
        while self._runs:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
