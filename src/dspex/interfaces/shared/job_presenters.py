"""How jobs, batches and queues look to a caller."""

from typing import Any

from dspex.executions.batches.records import BatchResult
from dspex.executions.records import Execution
from dspex.interfaces.shared import presenters
from dspex.jobs.records import Job, QueueState
from dspex.kit.records import asdict

# What a caller of a background execution knows these states by.
_BATCH_STATUS = {"queued": "pending"}


def job(record: Job) -> dict[str, Any]:
    return {
        "id": record.id,
        "kind": record.kind,
        "queue": record.queue,
        "status": record.state,
        "subject": record.subject,
        "parent": record.parent,
        "key_id": record.author,
        "priority": record.priority,
        "attempts": record.attempts,
        "cancel_asked": record.cancel_asked,
        "progress": record.progress,
        "result": record.result,
        "error": None if record.error is None else asdict(record.error),
        "node": record.node,
        "created_at": record.created_at,
        "due_at": record.due_at,
        "started_at": record.started_at,
        "completed_at": record.completed_at,
    }


def batch(record: Job) -> dict[str, Any]:
    progress = record.progress or {}
    return {
        "id": record.id,
        "program": record.subject,
        "version": record.payload.get("version"),
        "status": _BATCH_STATUS.get(record.state, record.state),
        "items": progress.get("items"),
        "completed": progress.get("completed"),
        "failed": progress.get("failed"),
        "key_id": record.author,
        "error": None if record.error is None else asdict(record.error),
        "created_at": record.created_at,
        "started_at": record.started_at,
        "completed_at": record.completed_at,
    }


def batch_result(result: BatchResult, *, over: bool) -> dict[str, Any]:
    """One line of the results; `over` says that the batch is: what has no state then never gets one."""
    item, execution = result.item, result.execution
    status = item.state or ("cancelled" if over else "pending")
    line: dict[str, Any] = {"position": item.position, "status": status}
    if item.error is not None:
        return {**line, "execution_id": None, "error": item.error}
    line["execution_id"] = item.execution_id if item.state is not None else None
    return line if execution is None else line | outcome(execution)


def outcome(execution: Execution) -> dict[str, Any]:
    """What of an execution stands in a line of results."""
    answer = presenters.prediction(execution)
    names = ("outputs", "error", "violations", "cost_usd", "cache", "duration_ms", "simulated")
    return {name: answer[name] for name in names if name in answer}


def queue(record: QueueState) -> dict[str, Any]:
    return {
        "name": record.name,
        "limit": record.limit,
        "queued": record.queued,
        "running": record.running,
        "paused_at": record.paused_at,
    }
