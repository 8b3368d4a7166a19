"""Sliding windows over what runs, and what they say is wrong. Pure: time is given, nothing is told to anybody."""

import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from dspex.configuration.alerting import AlertSettings, AlertThresholds
from dspex.executions.facts import ExecutionFinished
from dspex.observability.records import Rule

# A window moves in steps of a thirtieth: what is this much too old may still count.
STEPS = 30
# Windows that are kept; the program that ran longest ago loses its first.
MOST_PROGRAMS = 1000
# The service's or the provider's failures; others are the caller's own doing.
OURS = frozenset({"internal", "unavailable", "timeout"})
# How a provider's refusal of our account looks: no caller could help it either.
OURS_BY_CODE = frozenset({"lm_rate_limited"})


@dataclass(slots=True)
class _Step:
    """What ended within one step of the window."""

    number: int
    ended: int = 0
    failed: int = 0
    slowest_s: float = 0.0
    slowest_pool_s: float = 0.0


@dataclass(slots=True)
class Window:
    """What ended in the last `length_s` seconds."""

    length_s: float
    ended: int = 0
    failed: int = 0
    _steps: deque[_Step] = field(default_factory=deque)

    def add(self, now: float, duration_s: float, *, failed: bool, pool_s: float = 0.0) -> None:
        """`pool_s` is the time in a pool without the models."""
        self.move(now)
        number = self._number(now)
        if not self._steps or self._steps[-1].number < number:
            self._steps.append(_Step(number))
        # A clock that went back counts into the newest step.
        step = self._steps[-1]
        step.ended += 1
        self.ended += 1
        if failed:
            step.failed += 1
            self.failed += 1
        step.slowest_s = max(step.slowest_s, duration_s)
        step.slowest_pool_s = max(step.slowest_pool_s, pool_s)

    def move(self, now: float) -> None:
        """Forgets what is too old."""
        first = self._number(now) - STEPS
        while self._steps and self._steps[0].number <= first:
            gone = self._steps.popleft()
            self.ended -= gone.ended
            self.failed -= gone.failed

    @property
    def slowest_s(self) -> float:
        return max((step.slowest_s for step in self._steps), default=0.0)

    @property
    def slowest_pool_s(self) -> float:
        return max((step.slowest_pool_s for step in self._steps), default=0.0)

    @property
    def error_rate(self) -> float:
        return self.failed / self.ended if self.ended else 0.0

    def _number(self, now: float) -> int:
        return int(now * STEPS / self.length_s)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The node's, or a program's own where it has some, for one of the processes that share the executions."""

    slow_execution_s: float
    slow_pool_call_s: float
    error_rate: float
    error_rate_executions: int
    error_rate_failures: int

    @classmethod
    def of(cls, settings: AlertSettings, own: AlertThresholds | None, processes: int) -> "Thresholds":
        chosen = own or AlertThresholds()

        def either(mine: float | None, theirs: float) -> float:
            return theirs if mine is None else mine

        rate = either(chosen.error_rate, settings.error_rate)
        executions = int(either(chosen.error_rate_executions, settings.error_rate_executions))
        return cls(
            either(chosen.slow_execution_s, settings.slow_execution_s),
            either(chosen.slow_pool_call_s, settings.slow_pool_call_s),
            rate,
            # However unevenly they are spread, one process has at least its share of them.
            math.ceil(executions / processes),
            # A share may be so small that one failure is too large a part of it; that much chance tells nothing.
            min(2, math.floor(rate * executions) + 1),
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is broken: by which value, which passed which threshold."""

    rule: Rule
    value: float
    threshold: float


@dataclass(slots=True)
class _Watched:
    """A program with thresholds."""

    window: Window
    own: AlertThresholds | None
    thresholds: Thresholds

    def findings(self, now: float) -> list[Finding]:
        self.window.move(now)
        window, limits, found = self.window, self.thresholds, []
        if window.slowest_s > limits.slow_execution_s:
            found.append(Finding("slow_execution", window.slowest_s, limits.slow_execution_s))
        if window.slowest_pool_s > limits.slow_pool_call_s:
            found.append(Finding("slow_pool_call", window.slowest_pool_s, limits.slow_pool_call_s))
        enough = window.ended >= limits.error_rate_executions and window.failed >= limits.error_rate_failures
        if enough and window.error_rate > limits.error_rate:
            found.append(Finding("error_rate", window.error_rate, limits.error_rate))
        return found


Key = tuple[str, str]


class Monitor:
    """A window for each (project, program) that this process runs, one of so many `processes` of the node."""

    def __init__(self, settings: AlertSettings, processes: int = 1) -> None:
        self._settings = settings
        self._processes = processes
        self._watched: OrderedDict[Key, _Watched] = OrderedDict()

    def add(self, fact: ExecutionFinished, now: float) -> list[Finding] | None:
        """What is wrong with the program now; None when this execution can't have changed it for the worse."""
        execution = fact.execution
        if execution.status == "cancelled" or execution.duration_ms is None:
            return None
        watched = self._of((execution.project, execution.program), fact.alerts)
        failed = is_ours(fact)
        duration_s = execution.duration_ms / 1000
        pool_s = fact.pool_s or 0.0
        watched.window.add(now, duration_s, failed=failed, pool_s=pool_s)
        limits = watched.thresholds
        slow = duration_s > limits.slow_execution_s or pool_s > limits.slow_pool_call_s
        if failed or slow or watched.window.failed:
            return watched.findings(now)
        return None

    def findings(self, now: float) -> Iterator[tuple[Key, list[Finding]]]:
        """What is wrong with each program now; those that did not run in the window are forgotten."""
        for key, watched in list(self._watched.items()):
            found = watched.findings(now)
            if not watched.window.ended:
                del self._watched[key]
            yield key, found

    @property
    def active_programs(self) -> int:
        """Programs that ran in the window."""
        return len(self._watched)

    def _of(self, key: Key, own: AlertThresholds | None) -> _Watched:
        watched = self._watched.get(key)
        if watched is None:
            watched = _Watched(Window(self._settings.window_s), own, self._thresholds(own))
            self._watched[key] = watched
            if len(self._watched) > MOST_PROGRAMS:
                self._watched.popitem(last=False)
        elif watched.own != own:
            watched.own, watched.thresholds = own, self._thresholds(own)
        self._watched.move_to_end(key)
        return watched

    def _thresholds(self, own: AlertThresholds | None) -> Thresholds:
        return Thresholds.of(self._settings, own, self._processes)


def is_ours(fact: ExecutionFinished) -> bool:
    """Whether an execution failed for a reason that its caller could not help."""
    error = fact.execution.error
    if error is None or fact.cut_short:
        return False
    return error.kind in OURS or error.code in OURS_BY_CODE
