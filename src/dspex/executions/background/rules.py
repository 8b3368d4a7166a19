"""How an execution follows its job: pure decisions."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from dspex.executions.records import Execution, ExecutionError
from dspex.jobs.records import Again, Completed, Failed, Job, JobError, Outcome
from dspex.jobs.rules import SNOOZE_S

KIND = "execution"
QUEUE = "llm_calls"
# Nobody was asked, or told to come back: waiting helps, and is nobody's fault.
PASSES = frozenset(
    {"lm_rate_limited", "rate_limited", "lane_full", "breaker_open", "pool_full", "program_breaker_open"}
)
LEAST_WAIT_S = 2.0


def snooze_s(error: ExecutionError | None) -> float | None:
    """How long to wait before trying again what failed for a reason that passes; None for what is over."""
    if error is None or error.code not in PASSES:
        return None
    return min(max(error.retry_after or SNOOZE_S, LEAST_WAIT_S), SNOOZE_S)


def outcome_of(execution: Execution) -> Outcome:
    """What a finished run means for its job."""
    error = execution.error
    wait_s = snooze_s(error)
    if error is None:
        return Completed()
    told = JobError(error.kind, error.code, error.message)
    return Failed(told) if wait_s is None else Again(wait_s, told, counted=False)


def as_its_job(execution: Execution, job: Job) -> Execution:
    """The execution of a job that changed for a reason of the job's own."""
    if job.state == "queued" or job.state == "paused":  # noqa: PLR1714
        return replace(execution, status="pending", node="", outputs=None, error=None, completed_at=None)
    if job.state == "running":
        return replace(execution, status="running", node=job.node or "", started_at=job.started_at)
    error = None
    if job.error is not None:
        kind = "CancelledError" if job.state == "cancelled" else "JobError"
        error = ExecutionError(job.error.kind, job.error.code, kind, job.error.message)
    return replace(execution, status=job.state, node="", error=error, completed_at=job.completed_at)


def joined(before: Execution, run: Execution) -> Execution:
    """A run together with what earlier ones of the same execution left: their calls, tokens and costs count too."""
    return replace(
        run,
        created_at=before.created_at,
        started_at=before.started_at or run.started_at,
        usage=_added(before.usage, run.usage),
        cost_usd=_sum(before, run),
        saved_usd=round(before.saved_usd + run.saved_usd, 12),
        calls=(*before.calls, *run.calls),
    )


def _added(first: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {name: first.get(name, 0) + more.get(name, 0) for name in {**first, **more}}


def _sum(before: Execution, run: Execution) -> float | None:
    """What one of them did not pay for has no price only if it reached a model."""
    costs = [one.cost_usd for one in (before, run) if any(_answered(call) for call in one.calls)]
    if not costs:
        return run.cost_usd
    return None if None in costs else round(sum(cost for cost in costs if cost is not None), 12)


def _answered(call: Mapping[str, Any]) -> bool:
    return call.get("error") is None
