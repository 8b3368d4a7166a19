"""How an evaluation follows its job, and what a failed example means: pure decisions."""

import hashlib
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from dspex.evaluations.records import Evaluation, ExampleFailure, Origin
from dspex.executions.background.rules import snooze_s
from dspex.executions.records import Execution, ExecutionError
from dspex.gateway.records import CAPPED
from dspex.jobs.records import Job
from dspex.kit.errors import DspexError

KIND = "evaluation"
QUEUE = "default"
# How often an example is run at the most, when what it needs fails.
TRIES = 3
# What the program did, or its model answered: no other try is owed to it, and an infrastructure is not to blame.
_OF_PROGRAM = frozenset(
    {
        "unusable_reply",
        "output_violation",
        "outputs_too_large",
        "reply_nested_too_deeply",
        "program_failed",
        "program_timeout",
        "wrong_outputs",
        "too_many_model_calls",
        "lm_invalid_request",
        "lm_context_window_exceeded",
        "lm_unsupported_feature",
        "out_of_memory",
    }
)
_MAY_PASS = frozenset({"unavailable", "timeout", "exhausted"})
# The evaluation may spend no more, or the budget of the key or of the program is used up: no example fares better.
SPENT = frozenset({"budget_exhausted", CAPPED})


def execution_id_of(evaluation_id: str, position: int) -> str:
    """A UUIDv7 of its own for each example, the same whenever it is run: so what was run before is found again."""
    drawn = hashlib.sha256(f"{evaluation_id}:{position}".encode()).hexdigest()
    variant = "89ab"[int(drawn[3], 16) % 4]
    return f"{evaluation_id[:13]}-7{drawn[:3]}-{variant}{drawn[4:7]}-{drawn[7:19]}"


def as_its_job(evaluation: Evaluation, job: Job) -> Evaluation:
    """The evaluation of a job that changed."""
    return replace(
        evaluation,
        status=job.state,
        started_at=job.started_at,
        completed_at=job.completed_at,
        error=job.error,
    )


def may_pass(error: ExecutionError | None) -> bool:
    """Whether the same example may do better in a while, through no merit of the program."""
    if error is None or error.code in _OF_PROGRAM or error.code in SPENT:
        return False
    return error.kind in _MAY_PASS


def is_final(execution: Execution) -> bool:
    """Whether nothing would be gained by running it again."""
    if is_cut_short(execution):
        return True
    return execution.status in ("completed", "failed") and not (
        may_pass(execution.error) or snooze_s(execution.error) is not None
    )


def is_cut_short(execution: Execution) -> bool:
    """Whether it ended for no other reason than that its evaluation may spend no more."""
    return execution.error is not None and execution.error.code == CAPPED


def failure_of(error: ExecutionError) -> ExampleFailure:
    origin: Origin = "program" if error.code in _OF_PROGRAM else "infrastructure"
    return ExampleFailure(origin, error.kind, error.code, error.message)


def failure_from(error: DspexError, origin: Origin) -> ExampleFailure:
    return ExampleFailure(origin, error.kind, error.code, error.message)


def cost_of(execution: Execution) -> float | None:
    """What a run cost; None when the price of a call is unknown, 0 when no model answered."""
    if execution.cost_usd is not None:
        return execution.cost_usd
    answered = any(call.get("error") is None for call in execution.calls)
    return None if answered else 0.0


def calls_of(execution: Execution) -> int:
    """How many of its calls went to a model."""
    return sum(call.get("cache") != "hit" for call in execution.calls)


def tokens_of(execution: Execution) -> int:
    usage: Mapping[str, Any] = execution.usage
    total = usage.get("total_tokens")
    return int(total if total is not None else usage.get("input_tokens", 0) + usage.get("output_tokens", 0))


def added(one: float | None, other: float | None) -> float | None:
    """Of costs: what has an unknown part is unknown."""
    return None if one is None or other is None else round(one + other, 12)
