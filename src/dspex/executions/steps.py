"""What becomes of a pipeline's steps in one execution: kept while it runs, told to who listens, recorded."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from dspex.executions import outcomes
from dspex.executions.events import Listener, StepChanged
from dspex.gateway.records import LanguageModelCall
from dspex.kit import json
from dspex.kit.clock import Clock, SystemClock
from dspex.programs.pipelines.records import Pipeline

StepStatus = Literal["pending", "running", "completed", "failed", "skipped", "cancelled"]


class StepRun(Struct, frozen=True):
    """`outputs` are JSON values, `error` {"kind", "code", "type", "message"}. `reason` is why a step was skipped."""

    name: str
    status: StepStatus = "pending"
    started_at: datetime | None = None
    duration_ms: float | None = None
    outputs: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None
    reason: str | None = None
    violations: tuple[Mapping[str, str], ...] = ()

    def to_json(self, calls: Iterable[LanguageModelCall]) -> dict[str, Any]:
        """As it is recorded, with what its calls used and cost."""
        own = [call for call in calls if call.step == self.name]
        document: dict[str, Any] = {
            "name": self.name,
            "status": self.status,
            "started_at": None if self.started_at is None else json.time_text(self.started_at),
            "duration_ms": self.duration_ms,
            "usage": outcomes.usage(own),
            "cost_usd": outcomes.cost(own) if own else 0.0,
            "outputs": self.outputs,
        }
        if self.error is not None:
            document["error"] = self.error
        if self.reason is not None:
            document["reason"] = self.reason
        if self.violations:
            document["violations"] = self.violations
        return document


class Progress:
    """Of one execution. `failed` is the step that made the whole fail, the first of several. `spoilt` are the keys of

    kept replies that a step could make nothing of.
    """

    def __init__(self, plan: Pipeline, clock: Clock, listener: Listener | None) -> None:
        self.failed: str | None = None
        self.spoilt: list[str] = []
        self._plan = plan
        self._clock = clock
        self._listener = listener
        self._started: dict[str, float] = {}
        self._runs = {step.name: StepRun(step.name) for step in plan.steps}

    @property
    def all_went_well(self) -> bool:
        return all(run.status in ("completed", "skipped") for run in self._runs.values())

    def violations(self) -> tuple[Mapping[str, str], ...]:
        """What outputs of steps break that are no outputs of the whole, placed at /steps/{name}/outputs/{field}."""
        shown = {str(one) for sources in self._plan.outputs.values() for one in sources}
        return tuple(
            {**one, "pointer": f"/steps/{run.name}{one['pointer']}"}
            for run in self._runs.values()
            for one in run.violations
            if f"{run.name}.{one['pointer'].split('/')[2]}" not in shown
        )

    def to_json(self, calls: Sequence[LanguageModelCall]) -> tuple[dict[str, Any], ...]:
        """In the order of the steps."""
        return tuple(run.to_json(calls) for run in self._runs.values())

    def started(self, name: str) -> None:
        self._started[name] = self._clock.monotonic()
        self._runs[name] = StepRun(name, "running", self._clock.now())
        self._tell(StepChanged(name, "started"))

    def skipped(self, name: str, reason: str) -> None:
        self._runs[name] = StepRun(name, "skipped", reason=reason)
        self._tell(StepChanged(name, "skipped"))

    def completed(
        self, name: str, outputs: Mapping[str, Any], violations: tuple[Mapping[str, str], ...]
    ) -> None:
        run = self._ended(name, "completed", outputs=outputs, violations=violations)
        self._tell(StepChanged(name, "completed", outputs=outputs, duration_ms=run.duration_ms))

    def has_failed(self, name: str, error: Mapping[str, str], *, ends_all: bool) -> None:
        if ends_all and self.failed is None:
            self.failed = name
        run = self._ended(name, "failed", error=error)
        self._tell(StepChanged(name, "failed", error=error, duration_ms=run.duration_ms))

    def cancelled(self, name: str) -> None:
        self._ended(name, "cancelled")

    def _ended(self, name: str, status: StepStatus, **more: Any) -> StepRun:
        ended = self._clock.monotonic()
        duration_ms = round((ended - self._started.get(name, ended)) * 1000, 3)
        run = replace(self._runs[name], status=status, duration_ms=duration_ms, **more)
        self._runs[name] = run
        return run

    def _tell(self, event: StepChanged) -> None:
        if self._listener is not None:
            self._listener.tell(event)


# Of everything that is no pipeline.
NO_STEPS: Final = Progress(Pipeline((), (), {}, {}, ()), SystemClock(), None)
