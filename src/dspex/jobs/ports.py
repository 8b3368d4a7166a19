"""What the jobs room needs from outside."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

from dspex.jobs.once import Claim, Once
from dspex.jobs.records import Job, JobCount, JobFilter, Outcome
from dspex.kit.paging import Page

JOBS_WAITING = "jobs.waiting"
JOB_CANCELLED = "jobs.cancelled"
JOB_PAUSED = "jobs.paused"


class Changes(Protocol):
    """Writes what became of a job of one kind, with all that belongs to it."""

    async def change(self, before: Job, after: Job, followers: Sequence[Job] = ()) -> bool:
        """All or nothing, committed on return. False, and nothing is written, when the stored job has another

        state, turn or number of attempts than `before`. `cancel_asked` is left as it is, unless the job was over.
        """
        ...


class JobStore(Changes, Protocol):
    async def add(self, *jobs: Job) -> None:
        """All or none, committed on return."""
        ...

    async def add_once(self, job: Job, once: Once) -> str:
        """The id of the job that its key became, committed on return: this one, or the one that was there first.

        Raises Conflict (code idempotency_key_reused) when that was asked for with another body.
        """
        ...

    async def claimed(self, project: str, key: str) -> Claim | None:
        """None also when the job is no longer kept."""
        ...

    async def get(self, project: str, job_id: str) -> Job | None: ...

    async def list(self, project: str, where: JobFilter, *, limit: int, cursor: str | None) -> Page[Job]:
        """Newest first, without their payloads and results."""
        ...

    async def counts(self, project: str | None) -> Sequence[JobCount]: ...

    async def waiting(self, queues: Sequence[str], *, at: datetime, limit: int) -> Sequence[Job]:
        """Queued and due, of all projects, without payloads: at most `limit` of each queue that is not paused,

        by priority and age.
        """
        ...

    async def next_due(self, *, after: datetime) -> datetime | None:
        """When the next queued job becomes due that is not."""
        ...

    async def overdue(self, *, since: datetime) -> bool:
        """Whether a job could have been begun at that time, and was not."""
        ...

    async def unfinished(self) -> bool:
        """Whether there is any job that is not over."""
        ...

    async def recorded(self) -> bool:
        """Whether there is any job, over or not."""
        ...

    async def running(self) -> Sequence[Job]:
        """Those that have been begun, of all projects, without payloads."""
        ...

    async def ask_cancel(self, project: str, job_id: str) -> bool:
        """Notes that a running job should end; False when it does not run."""
        ...

    async def progress(self, job: Job, progress: Mapping[str, Any]) -> bool:
        """Of a job as it was begun; False when somebody else has it now."""
        ...

    async def pause(self, queue: str, at: datetime | None) -> None:
        """No job of the queue is begun any more; None: they are again."""
        ...

    async def paused(self) -> Mapping[str, datetime]: ...

    async def prune(self, *, completed_before: datetime) -> int:
        """Deletes jobs that ended before that time, in batches, with what belongs to them; returns how many."""
        ...


Known = Literal["unknown", "open", "ended"]


class JobEngine(Protocol):
    """Gives each job to one worker at a time, within the limits of its queue."""

    async def enqueue(self, job: Job) -> None:
        """For this turn of the job; again is harmless."""
        ...

    async def known(self, job: Job) -> Known:
        """What it knows of this turn of the job."""
        ...

    async def owners(self) -> Sequence[str]:
        """Nodes that have jobs, dead or alive."""
        ...

    async def take_from(self, nodes: Sequence[str]) -> None:
        """Gives the jobs of dead nodes to others."""
        ...

    async def prune(self, *, completed_before: datetime) -> int: ...


class Run(Protocol):
    """A job under way, as its handler sees it."""

    @property
    def job(self) -> Job: ...

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for its end; else a cancellation means that the worker stops."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether the worker stops: what has parts begins no more of them, and ends in a cancellation."""
        ...

    def stop_at_once(self) -> None:
        """A worker that stops cancels it from now on without waiting for its end: it goes on elsewhere from there."""
        ...

    async def own(self) -> None:
        """Returns while the job is this worker's for sure; waits while nobody can say.

        Ends in a cancellation when it is not.
        """
        ...

    async def settle(self, outcome: Outcome | None, changes: Changes | None = None) -> Job | None:
        """Writes what became of the job, in a way of the handler's own; what the handler returns counts no more then.

        None for `outcome` stands for a cancellation: cancelled when that was asked for, else given back. Waits for
        a database that is away. None when the job is somebody else's.
        """
        ...


class Handler(Protocol):
    """Does the jobs of one kind."""

    async def run(self, run: Run) -> Outcome:
        """A DspexError that it raises fails the job; exhausted and unavailable ones are tried again."""
        ...
