"""What may become of a job: pure decisions."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from dspex.jobs.records import ENDED, QUEUES, Again, Completed, Failed, Job, JobError, JobState, Outcome
from dspex.kit.errors import Conflict, DspexError, Invalid, Problem
from dspex.kit.ids import new_id

ATTEMPTS = 5
# What takes hours is not begun so often.
FEWER_ATTEMPTS: Mapping[str, int] = {"optimization": 3}
# Where nobody is at fault a job waits this often: a provider may limit the rate for an hour and a half.
TURNS = 100
SNOOZE_S = 60.0
WEBHOOK = "webhook"
_MAY_BECOME: Mapping[JobState, frozenset[JobState]] = {
    "queued": frozenset({"running", "paused", "cancelled", "failed"}),
    "running": frozenset({"running", "queued", "paused", "completed", "failed", "cancelled"}),
    "paused": frozenset({"queued", "cancelled"}),
    "completed": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}
CANCELLED = JobError("cancelled", "cancelled", "It was cancelled.")
WORKER_DIED = JobError(
    "internal",
    "worker_died",
    "Its worker died each time that it ran; see the workers' logs, then retry the job.",
)


def check_queue(name: str) -> str:
    """Raises Invalid (code unknown_queue): the engine would take any name, and nobody would ever serve it."""
    if name not in QUEUES:
        raise Invalid(
            f"There is no queue {name[:80]!r}; there are {', '.join(QUEUES)}.",
            code="unknown_queue",
            problems=[Problem("/queue", "unknown_queue", f"one of {', '.join(QUEUES)}")],
        )
    return name


def queue_limits(own: Iterable[tuple[str, int]]) -> dict[str, int]:
    """How many jobs of each queue one worker runs at once, with what is set otherwise."""
    return {**QUEUES, **dict(own)}


def attempts_of(kind: str) -> int:
    """How often a job of a kind is begun at the most."""
    return FEWER_ATTEMPTS.get(kind, ATTEMPTS)


def backoff_s(attempts: int) -> float:
    """2^n seconds after the n-th attempt."""
    return 2.0**attempts


def _moved(job: Job, state: JobState, **changes: Any) -> Job:
    if state not in _MAY_BECOME[job.state]:
        raise Conflict(f"A job that is {job.state} can't become {state}.", code="job_state")
    return replace(job, state=state, **changes)


def begun(job: Job, node: str, at: datetime) -> Job:
    """By that node. It is over instead when it was to be cancelled, or has taken its workers along too often."""
    if job.cancel_asked:
        return cancelled(job, at)
    if job.attempts >= attempts_of(job.kind):
        return _moved(job, "failed", completed_at=at, error=WORKER_DIED)
    return _moved(
        job, "running", node=node, attempts=job.attempts + 1, started_at=job.started_at or at, error=None
    )


def settled(job: Job, outcome: Outcome, at: datetime) -> Job:
    """What becomes of a running job."""
    match outcome:
        case Completed(result):
            return _moved(job, "completed", completed_at=at, result=result)
        case Failed(error):
            return _moved(job, "failed", completed_at=at, error=error)
        case Again(after_s, error, counted):
            used_up = job.attempts >= attempts_of(job.kind) if counted else job.turn >= TURNS
            if used_up:
                return _moved(job, "failed", completed_at=at, error=error)
            again = _moved(job, "queued", due_at=at + timedelta(seconds=after_s), error=error)
            return replace(
                again, node=None, turn=job.turn + 1, attempts=job.attempts if counted else job.attempts - 1
            )


def given_back(job: Job, at: datetime) -> Job:
    """As if it had not been begun: its worker stops."""
    back = _moved(job, "queued", due_at=at, node=None)
    return replace(back, turn=job.turn + 1, attempts=job.attempts - 1)


def paused(job: Job, at: datetime) -> Job:
    """Waits until it is resumed; what ran is as if it had not been begun. Raises Conflict (code job_state)."""
    after = _moved(job, "paused", due_at=at, node=None)
    return replace(after, attempts=job.attempts - (job.state == "running"))


def resumed(job: Job, at: datetime) -> Job:
    """Raises Conflict (code job_state) unless it is paused."""
    if job.state != "paused":
        raise Conflict(f"Only paused jobs are resumed; this one is {job.state}.", code="job_state")
    return replace(_moved(job, "queued", due_at=at, error=None), turn=job.turn + 1)


def unbegun(job: Job) -> Job:
    """Queued as it was, for another turn: its queue is paused."""
    return replace(job, turn=job.turn + 1)


def lost(job: Job, at: datetime) -> Job:
    """Begun, and its worker is gone without a trace in the engine."""
    return replace(_moved(job, "queued", due_at=at, node=None), turn=job.turn + 1)


def cancelled(job: Job, at: datetime) -> Job:
    """Raises Conflict (code job_state) for one that is over."""
    return _moved(job, "cancelled", completed_at=at, error=CANCELLED)


def retried(job: Job, at: datetime) -> Job:
    """From the beginning. Raises Conflict (code job_state) unless it failed or was cancelled."""
    if job.state not in ("failed", "cancelled"):
        raise Conflict(
            f"Only failed and cancelled jobs are retried; this one is {job.state}.", code="job_state"
        )
    fresh = _moved(job, "queued", due_at=at, node=None, error=None, completed_at=None, started_at=None)
    return replace(fresh, turn=job.turn + 1, attempts=0, cancel_asked=False, result=None)


def notice_of(job: Job, at: datetime) -> Job | None:
    """The job that tells somebody's webhook that this one is over; None when nobody asked for it."""
    target = job.payload.get("webhook")
    if job.state not in ENDED or target is None:
        return None
    return Job(
        id=new_id(),
        project=job.project,
        kind=WEBHOOK,
        queue="priority",
        created_at=at,
        due_at=at,
        payload={"url": target["url"], "kind": job.kind, "state": job.state},
        subject=job.subject,
        author=job.author,
        parent=job.id,
    )


def error_of(error: DspexError) -> JobError:
    return JobError(error.kind, error.code, error.message)
