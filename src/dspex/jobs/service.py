"""Making, watching, cancelling and retrying jobs, and pausing queues."""

from collections.abc import Mapping, Sequence

import structlog

from dspex.jobs import rules
from dspex.jobs.once import Claim, Once, check_body
from dspex.jobs.ports import JOB_CANCELLED, JOB_PAUSED, JOBS_WAITING, Changes, JobStore
from dspex.jobs.records import QUEUES, Job, JobCount, JobFilter, QueueState
from dspex.kit.clock import Clock
from dspex.kit.errors import Conflict, DspexError, Missing, Unavailable
from dspex.kit.paging import Page
from dspex.kit.signals import Signals

log = structlog.get_logger(__name__)
# A job may change under our hands a few times before we get hold of it.
TRIES = 5


class Jobs:
    """`changes` are the ways of kinds that have more to write than the job itself, `limits` those of the queues.

    `engine` says whether workers can run here, or run elsewhere.
    """

    def __init__(
        self,
        store: JobStore,
        signals: Signals,
        clock: Clock,
        changes: Mapping[str, Changes],
        limits: Mapping[str, int] = QUEUES,
        *,
        engine: bool = True,
    ) -> None:
        self._store = store
        self._limits = limits
        self._engine = engine
        self._signals = signals
        self._clock = clock
        self._changes = changes

    def check_engine(self) -> None:
        """Raises Unavailable (code job_engine_missing) where nobody could do what is submitted."""
        if not self._engine:
            raise Unavailable(
                "Nothing runs in the background here: the job engine is not installed. Its operator runs pip install "
                "'dspex[jobs]'.",
                code="job_engine_missing",
            )

    async def submit(self, *jobs: Job) -> None:
        """Raises Invalid (code unknown_queue), Unavailable."""
        self.check_engine()
        for job in jobs:
            rules.check_queue(job.queue)
        await self._store.add(*jobs)
        await self.wake()

    async def submit_once(self, job: Job, once: Once) -> str:
        """The id of the job that the key became: this one, or the one that was there first.

        Raises as `submit`, and Conflict (code idempotency_key_reused) for another body.
        """
        self.check_engine()
        rules.check_queue(job.queue)
        job_id = await self._store.add_once(job, once)
        await self.wake()
        return job_id

    async def claimed(self, project: str, key: str) -> Claim | None:
        """What an `Idempotency-Key` became, as long as that job is kept."""
        return await self._store.claimed(project, key)

    async def made_before(self, project: str, once: Once | None) -> str | None:
        """The id of the job that the key became. Raises Conflict (code idempotency_key_reused) for another body."""
        claim = None if once is None else await self.claimed(project, once.key)
        if once is None or claim is None:
            return None
        check_body(claim.body_digest, once.digest())
        return claim.job_id

    async def wake(self) -> None:
        """Has the workers look at once. Without it they look some seconds later: a failure is only logged."""
        try:
            await self._signals.send(JOBS_WAITING, {})
        except DspexError as error:
            log.warning("workers_not_woken", reason=error.message)

    async def get(self, project: str, job_id: str) -> Job:
        """Raises Missing (code job_missing)."""
        job = await self._store.get(project, job_id)
        if job is None:
            raise Missing(f"There is no job {job_id!r}; jobs are kept for a week.", code="job_missing")
        return job

    async def is_open(self, project: str, job_id: str) -> bool:
        """Whether there is such a job, and it is not over."""
        job = await self._store.get(project, job_id)
        return job is not None and job.completed_at is None

    async def list(self, project: str, where: JobFilter, *, limit: int, cursor: str | None) -> Page[Job]:
        return await self._store.list(project, where, limit=limit, cursor=cursor)

    async def counts(self, project: str | None) -> Sequence[JobCount]:
        return await self._store.counts(project)

    async def cancel(self, project: str, job_id: str) -> Job:
        """At once while it waits; a running one ends within a second or two. Raises Missing, Conflict (job_state)."""
        for _ in range(TRIES):
            job = await self.get(project, job_id)
            if job.state == "running":
                if await self._store.ask_cancel(project, job_id):
                    await self._signals.send(JOB_CANCELLED, {"project": project, "id": job_id})
                    return await self.get(project, job_id)
                continue
            at = self._clock.now()
            after = rules.cancelled(job, at)
            if await self._change(job, after):
                return after
        raise _busy(job_id)

    async def pause(self, project: str, job_id: str) -> Job:
        """It is not begun before it is resumed; a worker that runs it lets go of it within seconds.

        Raises Missing, Conflict (code job_state) when it is over or paused.
        """
        for _ in range(TRIES):
            job = await self.get(project, job_id)
            after = rules.paused(job, self._clock.now())
            if await self._change(job, after):
                if job.state == "running":
                    await self._tell(JOB_PAUSED, project, job_id)
                return after
        raise _busy(job_id)

    async def resume(self, project: str, job_id: str) -> Job:
        """Raises Missing, Conflict (code job_state) when it is not paused."""
        for _ in range(TRIES):
            job = await self.get(project, job_id)
            after = rules.resumed(job, self._clock.now())
            if await self._change(job, after):
                await self.wake()
                return after
        raise _busy(job_id)

    async def _tell(self, topic: str, project: str, job_id: str) -> None:
        """Workers look by themselves a moment later: a failure is only logged."""
        try:
            await self._signals.send(topic, {"project": project, "id": job_id})
        except DspexError as error:
            log.warning("workers_not_told", reason=error.message)

    async def retry(self, project: str, job_id: str) -> Job:
        """Raises Missing, Conflict (code job_state)."""
        for _ in range(TRIES):
            job = await self.get(project, job_id)
            after = rules.retried(job, self._clock.now())
            if await self._change(job, after):
                await self.wake()
                return after
        raise _busy(job_id)

    async def _change(self, before: Job, after: Job) -> bool:
        notice = rules.notice_of(after, self._clock.now())
        changes = self._changes.get(before.kind, self._store)
        done = await changes.change(before, after, [] if notice is None else [notice])
        if done and notice is not None:
            await self.wake()
        return done

    async def queues(self) -> Sequence[QueueState]:
        paused = await self._store.paused()
        found: dict[tuple[str, str], int] = {}
        for one in await self._store.counts(None):
            found[one.queue, one.state] = found.get((one.queue, one.state), 0) + one.jobs
        return [
            QueueState(
                name, limit, found.get((name, "queued"), 0), found.get((name, "running"), 0), paused.get(name)
            )
            for name, limit in self._limits.items()
        ]

    async def pause_queue(self, name: str) -> None:
        """Jobs under way go on. Raises Missing (code queue_missing)."""
        await self._store.pause(_queue(name), self._clock.now())

    async def resume_queue(self, name: str) -> None:
        """Raises Missing (code queue_missing)."""
        await self._store.pause(_queue(name), None)
        await self.wake()


def _queue(name: str) -> str:
    if name not in QUEUES:
        raise Missing(
            f"There is no queue {name[:80]!r}; there are {', '.join(QUEUES)}.", code="queue_missing"
        )
    return name


def _busy(job_id: str) -> Conflict:
    return Conflict(
        f"The job {job_id} changes too fast to be changed; try again.", code="job_busy", retry_after=1
    )
