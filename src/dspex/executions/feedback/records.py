"""Feedback on an execution."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

Only = Literal["corrections", "feedback", "all"]


class Feedback(Struct, frozen=True):
    """One judgement; an execution may have several, of which the newest word on each member counts.

    `score` is finite, higher is better. `correction` has outputs as they should have been. `key_id` is whose.
    """

    id: str
    project: str
    execution_id: str
    created_at: datetime
    score: float | None = None
    label: str | None = None
    correction: Mapping[str, Any] | None = None
    comment: str | None = None
    key_id: str | None = None


class ExampleFilter(Struct, frozen=True):
    """Which executions become rows; every member given must hold. `since` is inclusive, `until` exclusive."""

    program: str
    version: int | None = None
    only: Only = "feedback"
    since: datetime | None = None
    until: datetime | None = None
    min_score: float | None = None
    label: str | None = None
