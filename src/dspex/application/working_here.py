"""One job done by a command, where no worker runs that would."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from dspex.access.records import DEFAULT_PROJECT
from dspex.application.foundation import Foundation, open_foundation
from dspex.application.job_handlers import handlers
from dspex.application.jobs_check import WORKER
from dspex.application.maintenance import DEAD_AFTER
from dspex.application.origin import Origin
from dspex.application.preparing import declare_file
from dspex.application.wiring import services_on
from dspex.configuration.settings import Settings
from dspex.interfaces.shared.services import Services
from dspex.jobs import rules
from dspex.jobs.lease import Lease
from dspex.jobs.records import ENDED, Job
from dspex.jobs.worker import Worker
from dspex.kit.errors import DspexError

KIND = "command-"
LOOK_S = 0.5
# What is under way may end for so long when it is to stop.
STOP_S = 5.0


class WorkingHere:
    """`interfaces.cli.ports.WorkingHere`."""

    def __init__(
        self, foundation: Foundation, services: Services, settings: Settings, origin: Origin
    ) -> None:
        self.services = services
        self._foundation = foundation
        self._settings = settings
        self._origin = origin

    async def declare(self, project: str) -> None:
        """As a server does when it starts. Raises Invalid for mistakes in the file."""
        if project == DEFAULT_PROJECT:
            await declare_file(self._foundation, self._settings, self._origin)

    async def finish(self, project: str, job_id: str, stop: asyncio.Event) -> None:
        """Returns when the job is over: done here, or by a worker that runs. Gives it back when it is to stop."""
        foundation = self._foundation
        database, clock, node = foundation.database, foundation.clock, foundation.node
        lease = Lease(lambda: database.nodes.beat(node, clock.now()), clock)
        await lease.beat()
        worker = Worker(
            database.jobs,
            foundation.job_changes,
            handlers(foundation, self.services, self._settings),
            lease,
            clock,
            foundation.facts,
            node,
        )
        lease.look_after = worker.look_after
        beating = asyncio.create_task(lease.beat_for_ever())
        stopping = asyncio.create_task(stop.wait())
        try:
            while (job := await foundation.jobs.get(project, job_id)).state not in ENDED:
                taking = None
                if (due := await self._due(job)) is not None:
                    taking = asyncio.create_task(worker.take(project, job_id, due.turn))
                work = [stopping] if taking is None else [stopping, taking]
                timeout_s = LOOK_S if taking is None else None
                await asyncio.wait(work, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    await worker.stop(STOP_S)
                    if taking is not None:
                        await taking
                    return
        finally:
            beating.cancel()
            stopping.cancel()
            await asyncio.wait([beating, stopping])
            with suppress(DspexError):
                await database.nodes.leave(node)

    async def elsewhere(self, project: str, job_id: str) -> str | None:
        """`interfaces.cli.ports.WorkingHere.elsewhere`; to be asked when `finish` has given the job back."""
        foundation = self._foundation
        job = await foundation.jobs.get(project, job_id)
        if job.state in ENDED or job.state == "paused":
            return None
        alive = await foundation.database.nodes.alive(beat_after=foundation.clock.now() - DEAD_AFTER)
        if job.state == "running" and job.node != foundation.node and job.node in alive:
            return job.node
        workers = [one for one in alive if one.startswith(WORKER)]
        if not workers and self._settings.jobs.workers:
            # A node that serves starts workers when it sees that a job waits.
            workers = [one for one in alive if not one.startswith(KIND)]
        return " or ".join(workers) or None

    async def _due(self, job: Job) -> Job | None:
        """The job, if nobody else would do it now."""
        database, now = self._foundation.database, self._foundation.clock.now()
        alive = await database.nodes.alive(beat_after=now - DEAD_AFTER)
        if any(one.startswith(WORKER) for one in alive):
            return None
        if job.state == "running" and job.node not in alive:
            # A command that did it was killed.
            before, job = job, rules.lost(job, now)
            await self._foundation.job_changes.get(job.kind, database.jobs).change(before, job)
        due = job.state == "queued" and job.due_at <= now and job.queue not in await database.jobs.paused()
        return job if due else None


@asynccontextmanager
async def working_here(settings: Settings, origin: Origin) -> AsyncIterator[WorkingHere]:
    limits = settings.limits.model_copy(update={"timeout_s": settings.jobs.timeout_s})
    patient = settings.model_copy(update={"limits": limits})
    async with (
        open_foundation(settings, kind=KIND) as foundation,
        services_on(foundation, patient) as services,
    ):
        yield WorkingHere(foundation, services, settings, origin)
