"""What happens while an execution runs, for those who watch it."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct

StepState = Literal["started", "completed", "failed", "skipped"]


class Began(Struct, frozen=True):
    """Comes first, once the execution is on record as running or its answer was in a cache: it can be asked for by

    its id. What fails before is raised, and nothing is told of it.
    """

    execution_id: str
    program: str
    version: int | None


class FieldDelta(Struct, frozen=True):
    """More text of an output field, as DSPy's parse will give it; `step` in a pipeline. Never empty.

    All deltas of a field of type str, one after the other, are its value; of other fields they are it as JSON. A
    text that is empty or None has none.
    """

    name: str
    delta: str
    step: str | None = None


class StepChanged(Struct, frozen=True):
    """A step of a pipeline. `outputs` when it is completed, `error` {"kind", "code", "message"} when it failed."""

    step: str
    state: StepState
    outputs: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    duration_ms: float | None = None


class StatusChanged(Struct, frozen=True):
    """Something worth telling a person. With `restarted`, the fields told so far (of `step`) are void."""

    message: str
    restarted: bool = False
    step: str | None = None


Event = Began | FieldDelta | StepChanged | StatusChanged


class Listener(Protocol):
    """One who watches an execution. Telling never waits and never raises: what piles up is the listener's to bound."""

    def tell(self, event: Event) -> None: ...
