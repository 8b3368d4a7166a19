"""What is put on record of an execution: while it runs, and when it has ended."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from dspex.configuration.caching import CachePolicy
from dspex.executions import outcomes
from dspex.executions.catalog import Runnable
from dspex.executions.facts import ExecutionFinished
from dspex.executions.mock import Mock
from dspex.executions.outcomes import Outcome
from dspex.executions.pooled import PooledProgram
from dspex.executions.records import Execution
from dspex.executions.requests import PredictionRequest
from dspex.executions.steps import Progress
from dspex.gateway.records import LanguageModelCall
from dspex.gateway.steps.caching import NOTHING_USED
from dspex.kit.clock import Clock
from dspex.kit.tracing import TraceContext
from dspex.kit.waiting import Waiting

_NO_USAGE = dict(NOTHING_USED.counted())


class Begun(Struct, frozen=True):
    """An execution that has begun on `node`: `at` on the wall clock, `monotonic` on the other."""

    runnable: Runnable
    request: PredictionRequest
    node: str
    execution_id: str
    at: datetime
    monotonic: float
    span: TraceContext | None


def running(begun: Begun) -> Execution:
    """What is known of it while it runs."""
    return Execution(**_known(begun), status="running")


def _known(begun: Begun) -> dict[str, Any]:
    runnable, request = begun.runnable, begun.request
    return {
        "id": begun.execution_id,
        "project": request.project,
        "request_id": request.request_id,
        "program": runnable.name,
        "created_at": begun.at,
        "node": begun.node,
        "inputs": request.inputs,
        "program_id": runnable.program_id,
        "version_id": runnable.version_id,
        "version": runnable.version,
        "compiled_digest": runnable.compiled_digest,
        "session_id": request.session_id,
        "key_id": request.principal.key_id,
        "started_at": begun.at,
        "executor": _executor(runnable),
        "parameters": request.parameters,
        "metadata": request.metadata,
    }


def ended(
    begun: Begun,
    clock: Clock,
    policy: CachePolicy,
    outcome: Outcome,
    calls: Sequence[LanguageModelCall],
    progress: Progress,
    held: Waiting | None = None,
) -> Execution:
    """Its final record, completed or failed. What its calls were `held` by a cap is no time that the program took."""
    mocked = isinstance(begun.runnable.run, Mock)
    lasted_ms = (clock.monotonic() - begun.monotonic) * 1000
    waited_ms = outcomes.waited_ms(calls)
    # Where one call was held while another was answered, the answer's time counts.
    without_ms = lasted_ms - (0.0 if held is None else held.total_s * 1000)
    duration_ms = min(max(without_ms, waited_ms), lasted_ms)
    return Execution(
        **_known(begun),
        status="failed" if outcome.error else "completed",
        outputs=outcome.outputs,
        error=outcome.error,
        completed_at=clock.now(),
        duration_ms=round(duration_ms, 3),
        overhead_ms=round(max(duration_ms - waited_ms, 0.0), 3),
        usage=outcomes.usage(calls),
        cost_usd=0.0 if mocked else outcomes.cost(calls),
        saved_usd=outcomes.saved(calls),
        cache="off" if policy.mode == "off" else outcomes.cache_status(calls),
        model=None if mocked else (outcomes.model(calls) or begun.runnable.model),
        simulated=mocked or any(one.simulated for one in calls),
        violations=outcome.violations,
        calls=tuple(one.to_json() for one in calls),
        steps=progress.to_json(calls),
    )


def answered(begun: Begun, clock: Clock, outcome: Outcome, line: LanguageModelCall) -> Execution:
    """What `ended` would say of one that was answered from the cache whole, at a fraction of its cost."""
    duration_ms = round((clock.monotonic() - begun.monotonic) * 1000, 3)
    return Execution(
        **_known(begun),
        status="completed",
        outputs=outcome.outputs,
        completed_at=clock.now(),
        duration_ms=duration_ms,
        overhead_ms=duration_ms,
        usage=_NO_USAGE,
        cost_usd=0.0,
        saved_usd=line.saved_usd,
        cache="hit",
        model=line.model,
        simulated=line.simulated,
        violations=outcome.violations,
        calls=(line.to_json(),),
    )


def finished(
    begun: Begun, clock: Clock, outcome: Outcome, execution: Execution, waiting: Waiting | None = None
) -> ExecutionFinished:
    """Right after it `ended`. `waiting` is how long a program in a pool waited for a worker and models."""
    thresholds = begun.runnable.settings.alerts
    pool_s = None
    if waiting is not None:
        pool_s = max(clock.monotonic() - begun.monotonic - waiting.total_s, 0.0)
    return ExecutionFinished(
        execution, begun.request.size, outcome.size, thresholds, begun.span, pool_s=pool_s
    )


def _executor(runnable: Runnable) -> str:
    match runnable.run:
        case Mock():
            return "mock"
        case PooledProgram():
            return "pool"
    return "native"
