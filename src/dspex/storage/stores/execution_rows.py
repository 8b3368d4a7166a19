"""Executions as rows and back. Writing is by hand: this is on the way of every request."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast

from dspex.executions.records import CacheStatus, Execution, ExecutionError, ExecutionStatus
from dspex.kit.records import asdict
from dspex.storage.batches import Row
from dspex.storage.encoding import escape, json_text

# No call uses more: a larger count is a provider's mistake, and must not overflow the sums.
MOST_TOKENS = 10**12
# Of the table `executions`, which is described in `tables`.
COLUMNS = (
    "project",
    "id",
    "request_id",
    "program",
    "status",
    "created_at",
    "node",
    "program_id",
    "version_id",
    "version",
    "compiled_digest",
    "session_id",
    "key_id",
    "started_at",
    "completed_at",
    "duration_ms",
    "overhead_ms",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cost_usd",
    "saved_usd",
    "cache",
    "model",
    "executor",
    "simulated",
    "variant",
    "usage",
    "error",
    "parameters",
    "metadata",
    "violations",
    "inputs",
    "outputs",
    "calls",
    "steps",
)
KEY = ("project", "id")


def execution_row(execution: Execution, moment: Callable[[datetime], Any]) -> Row:
    """The values of COLUMNS."""
    usage = execution.usage
    error = execution.error
    created_at = started_at = moment(execution.created_at)
    if execution.started_at is not execution.created_at:
        # Not so for most, which begin as soon as they are there.
        started_at = None if execution.started_at is None else moment(execution.started_at)
    return (
        escape(execution.project),
        escape(execution.id),
        escape(execution.request_id),
        escape(execution.program),
        execution.status,
        created_at,
        escape(execution.node),
        execution.program_id,
        execution.version_id,
        execution.version,
        execution.compiled_digest,
        _escaped(execution.session_id),
        execution.key_id,
        started_at,
        None if execution.completed_at is None else moment(execution.completed_at),
        execution.duration_ms,
        execution.overhead_ms,
        _tokens(usage, "input_tokens"),
        _tokens(usage, "output_tokens"),
        _tokens(usage, "total_tokens"),
        execution.cost_usd,
        execution.saved_usd,
        execution.cache,
        _escaped(execution.model),
        execution.executor,
        execution.simulated,
        _escaped(execution.variant),
        _object(usage),
        None if error is None else json_text(asdict(error)),
        _object(execution.parameters),
        _object(execution.metadata),
        json_text(execution.violations) if execution.violations else "[]",
        _object(execution.inputs),
        None if execution.outputs is None else _object(execution.outputs),
        json_text(execution.calls) if execution.calls else "[]",
        json_text(execution.steps) if execution.steps else "[]",
    )


def _escaped(text: str | None) -> str | None:
    return None if text is None else escape(text)


def _tokens(usage: Mapping[str, int], name: str) -> int:
    return min(usage.get(name, 0), MOST_TOKENS)


def _object(value: Mapping[str, Any]) -> str:
    return json_text(value) if value else "{}"


def execution_of(row: Mapping[Any, Any]) -> Execution:
    error = row["error"]
    return Execution(
        id=row["id"],
        project=row["project"],
        request_id=row["request_id"],
        program=row["program"],
        status=cast(ExecutionStatus, row["status"]),
        created_at=row["created_at"],
        node=row["node"],
        inputs=row["inputs"],
        program_id=row["program_id"],
        version_id=row["version_id"],
        version=row["version"],
        compiled_digest=row["compiled_digest"],
        session_id=row["session_id"],
        key_id=row["key_id"],
        outputs=row["outputs"],
        error=None if error is None else ExecutionError(**error),
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        duration_ms=row["duration_ms"],
        overhead_ms=row["overhead_ms"],
        usage=row["usage"],
        cost_usd=row["cost_usd"],
        saved_usd=row["saved_usd"],
        cache=cast(CacheStatus, row["cache"]),
        model=row["model"],
        executor=row["executor"],
        simulated=bool(row["simulated"]),
        variant=row["variant"],
        parameters=row["parameters"],
        metadata=row["metadata"],
        violations=tuple(row["violations"]),
        # Lists leave them out.
        calls=tuple(row.get("calls", ())),
        steps=tuple(row.get("steps", ())),
    )
