"""How evaluations look to a caller."""

from typing import Any

from dspex.evaluations.records import Evaluation, ExampleResult, Pair
from dspex.kit.records import asdict


def evaluation(record: Evaluation) -> dict[str, Any]:
    return {
        "id": record.id,
        "program": record.program,
        "version": record.version,
        "dataset": record.dataset,
        "dataset_version": record.dataset_version,
        "dataset_digest": record.dataset_digest,
        "metric": record.metric.document(),
        "status": record.status,
        "examples": record.examples,
        "concurrency": record.concurrency,
        "budget_usd": record.budget_usd,
        "key_id": record.author,
        "progress": record.progress,
        # Reports of before it was counted apart do not have it.
        "result": record.result and {"metric_cost_usd": None, **record.result},
        "error": None if record.error is None else asdict(record.error),
        "created_at": record.created_at,
        "started_at": record.started_at,
        "completed_at": record.completed_at,
    }


def result(record: ExampleResult) -> dict[str, Any]:
    return {
        "position": record.position,
        "row_id": record.row_id,
        "execution_id": record.execution_id,
        "status": record.state,
        "score": record.score,
        "fields": record.fields,
        "feedback": record.feedback,
        "outputs": record.outputs,
        "error": None if record.failure is None else asdict(record.failure),
        "latency_ms": record.latency_ms,
        "cost_usd": record.cost_usd,
        "metric_cost_usd": record.metric_cost_usd,
        "cached": record.cached,
        "lm_calls": record.lm_calls,
        "tokens": record.tokens,
    }


def pair(record: Pair) -> dict[str, Any]:
    a, b = record.a, record.b
    both = a is not None and b is not None and a.score is not None and b.score is not None
    return {
        "position": record.position,
        "row_id": record.row_id,
        "difference": b.score - a.score if both else None,  # type: ignore[operator, union-attr]
        "a": None if a is None else result(a),
        "b": None if b is None else result(b),
    }
