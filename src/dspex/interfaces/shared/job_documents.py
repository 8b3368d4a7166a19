"""The documents of jobs, batches and queues, as types. Times are UTC."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class JobFailure(TypedDict):
    kind: str
    code: str
    message: str


class Job(TypedDict):
    id: str
    kind: str
    queue: str
    status: Literal["queued", "running", "paused", "completed", "failed", "cancelled"]
    subject: str | None
    parent: str | None
    key_id: str | None
    priority: int
    attempts: int
    cancel_asked: bool
    progress: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    error: JobFailure | None
    node: str | None
    created_at: datetime
    due_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class Queue(TypedDict):
    """`limit` is how many of its jobs one worker runs at once."""

    name: str
    limit: int
    queued: int
    running: int
    paused_at: datetime | None


class Batch(TypedDict):
    """`completed` and `failed` count its items; `version` is null in lists."""

    id: str
    program: str | None
    version: int | None
    status: Literal["pending", "running", "paused", "completed", "failed", "cancelled"]
    items: int | None
    completed: int | None
    failed: int | None
    key_id: str | None
    error: JobFailure | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class BatchLine(TypedDict):
    """A line of the results; `position` is the item's place in what was sent, from 1."""

    position: int
    status: Literal["pending", "completed", "failed", "cancelled"]
    execution_id: str | None
    outputs: NotRequired[Mapping[str, Any] | None]
    error: NotRequired[Mapping[str, Any]]
    violations: NotRequired[list[Mapping[str, str]]]
    cost_usd: NotRequired[float | None]
    cache: NotRequired[str]
    duration_ms: NotRequired[float | None]
    simulated: NotRequired[bool]


class Accepted(TypedDict):
    """A prediction that is made later."""

    id: str
    status: Literal["pending", "running", "completed", "failed", "cancelled"]
    request_id: str
    program: str
    version: int | None
    created_at: datetime
