"""Jobs: work that is done later, by whoever has a hand free, and that outlives whoever does it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

JobState = Literal["queued", "running", "paused", "completed", "failed", "cancelled"]
STATES: tuple[JobState, ...] = ("queued", "running", "paused", "completed", "failed", "cancelled")
ENDED = frozenset({"completed", "failed", "cancelled"})
# How many jobs of a queue one worker runs at once.
QUEUES: Mapping[str, int] = {
    "default": 10,
    "optimization": 2,
    "llm_calls": 20,
    "embeddings": 5,
    "cleanup": 3,
    "priority": 50,
}
FIRST, USUAL, LAST = 1, 5, 9


class JobError(Struct, frozen=True):
    """`kind` and `code` as in `kit.errors`."""

    kind: str
    code: str
    message: str


class Job(Struct, frozen=True):
    """`payload` is what its kind needs to do it, `subject` what a person knows it by (a program's name).

    `priority` is 1 to 9, the lowest first. It is not begun before `due_at`. `attempts` counts how often it was
    begun, without those that were not its own fault; `turn` how often it was given to the engine. Together
    they say who owns it: a worker that was given up for dead writes nothing any more. `author` is the key that
    asked for it, None for the operator. `parent` is the job it belongs to.
    """

    id: str
    project: str
    kind: str
    queue: str
    created_at: datetime
    due_at: datetime
    payload: Mapping[str, Any]
    state: JobState = "queued"
    priority: int = USUAL
    subject: str | None = None
    author: str | None = None
    parent: str | None = None
    attempts: int = 0
    turn: int = 0
    node: str | None = None
    cancel_asked: bool = False
    started_at: datetime | None = None
    completed_at: datetime | None = None
    progress: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    error: JobError | None = None


class JobFilter(Struct, frozen=True):
    """Every member given must hold."""

    kind: str | None = None
    queue: str | None = None
    state: JobState | None = None
    parent: str | None = None
    author: str | None = None


class JobCount(Struct, frozen=True):
    """Jobs on record, of all projects or one."""

    kind: str
    queue: str
    state: JobState
    jobs: int


class QueueState(Struct, frozen=True):
    """`limit` is how many of its jobs one worker runs at once; `paused_at` is None while it is not paused."""

    name: str
    limit: int
    queued: int
    running: int
    paused_at: datetime | None


class Completed(Struct, frozen=True):
    """Over, with what came of it."""

    result: Mapping[str, Any] | None = None


class Failed(Struct, frozen=True):
    """Over, and why."""

    error: JobError


class Again(Struct, frozen=True):
    """Not over yet: to be begun again after `after_s` seconds, by anybody. With `counted`, one attempt is used up."""

    after_s: float
    error: JobError
    counted: bool = True


Outcome = Completed | Failed | Again
