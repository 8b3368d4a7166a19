"""What ended in the last minutes, put together step by step, and what it says is wrong. Pure: time is given."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from dspex.configuration.alerting import AlertSettings, AlertThresholds
from dspex.executions.facts import ExecutionFinished
from dspex.observability.records import Finding, LongOptimization, Part, Rule

# A window moves in steps of a thirtieth: what is this much too old may still count.
STEPS = 30
# Parts that wait to be handed on while the database is away; the oldest are forgotten first.
MOST_PARTS = 10_000
# Parts that are handed on at once: a statement of a database takes some thirty thousand values.
MOST_TAKEN = 2000
# The service's or the provider's failures; others are the caller's own doing.
OURS = frozenset({"internal", "unavailable", "timeout"})
# How a provider's refusal of our account looks: no caller could help it either.
OURS_BY_CODE = frozenset({"lm_rate_limited"})


class _Count(Struct):
    """A part that still grows."""

    thresholds: AlertThresholds | None = None
    ended: int = 0
    failed: int = 0
    slowest_s: float = 0.0
    slowest_pool_s: float = 0.0


class Gathered:
    """What ended in this process since it was last taken."""

    def __init__(self, settings: AlertSettings) -> None:
        self._step_s = settings.window_s / STEPS
        self._counts: dict[tuple[int, str, str], _Count] = {}

    def add(self, fact: ExecutionFinished, now: datetime) -> None:
        execution = fact.execution
        if execution.status == "cancelled" or execution.duration_ms is None:
            return
        count = self._count(int(now.timestamp() / self._step_s), execution.project, execution.program)
        count.ended += 1
        count.failed += is_ours(fact)
        count.slowest_s = max(count.slowest_s, execution.duration_ms / 1000)
        count.slowest_pool_s = max(count.slowest_pool_s, fact.pool_s or 0.0)
        count.thresholds = fact.alerts

    def take(self) -> list[Part]:
        """`MOST_TAKEN` of them, in an order that is the same in all processes."""
        taken = sorted(self._counts)[:MOST_TAKEN]
        counts = [(key, self._counts.pop(key)) for key in taken]
        return [
            Part(
                project,
                program,
                datetime.fromtimestamp(step * self._step_s, UTC),
                count.ended,
                count.failed,
                count.slowest_s,
                count.slowest_pool_s,
                count.thresholds,
            )
            for (step, project, program), count in counts
        ]

    def give_back(self, parts: Sequence[Part]) -> None:
        """What was taken and could not be handed on."""
        for part in parts:
            count = self._count(round(part.began.timestamp() / self._step_s), part.project, part.program)
            count.ended += part.ended
            count.failed += part.failed
            count.slowest_s = max(count.slowest_s, part.slowest_s)
            count.slowest_pool_s = max(count.slowest_pool_s, part.slowest_pool_s)
            count.thresholds = count.thresholds or part.thresholds

    def _count(self, step: int, project: str, program: str) -> _Count:
        key = step, project, program
        count = self._counts.get(key)
        if count is None:
            if len(self._counts) >= MOST_PARTS:
                del self._counts[next(iter(self._counts))]
            count = self._counts[key] = _Count()
        return count


def together(one: Part, later: Part) -> Part:
    """Both as one; the thresholds are those of the later."""
    return replace(
        later,
        ended=one.ended + later.ended,
        failed=one.failed + later.failed,
        slowest_s=max(one.slowest_s, later.slowest_s),
        slowest_pool_s=max(one.slowest_pool_s, later.slowest_pool_s),
    )


def judged(seen: Part, settings: AlertSettings) -> list[Finding]:
    """What is wrong with a program, by all that ended in the window; its own thresholds go before the node's."""
    own = seen.thresholds or AlertThresholds()
    found = []
    limit_s = _either(own.slow_execution_s, settings.slow_execution_s)
    if seen.slowest_s > limit_s:
        found.append(Finding("slow_execution", seen.slowest_s, limit_s))
    limit_s = _either(own.slow_pool_call_s, settings.slow_pool_call_s)
    if seen.slowest_pool_s > limit_s:
        found.append(Finding("slow_pool_call", seen.slowest_pool_s, limit_s))
    limit = _either(own.error_rate, settings.error_rate)
    enough = seen.ended >= _either(own.error_rate_executions, settings.error_rate_executions)
    if enough and seen.failed / seen.ended > limit:
        found.append(Finding("error_rate", seen.failed / seen.ended, limit))
    return found


def measured(seen: Part) -> Mapping[Rule, float]:
    """What the rules look at."""
    return {
        "slow_execution": seen.slowest_s,
        "slow_pool_call": seen.slowest_pool_s,
        "error_rate": seen.failed / seen.ended if seen.ended else 0.0,
    }


def is_ours(fact: ExecutionFinished) -> bool:
    """Whether an execution failed for a reason that its caller could not help."""
    error = fact.execution.error
    if error is None or fact.cut_short:
        return False
    return error.kind in OURS or error.code in OURS_BY_CODE


def too_long(running: LongOptimization, settings: AlertSettings) -> Finding | None:
    limit_s = _either(running.own_s, settings.long_optimization_s)
    return Finding("long_optimization", running.seconds, limit_s) if running.seconds > limit_s else None


def _either(own: float | None, nodes: float) -> float:
    return nodes if own is None else own
