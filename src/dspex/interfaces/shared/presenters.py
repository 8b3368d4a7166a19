"""How records look to a caller: the same documents over HTTP and on the command line."""

from typing import Any

from dspex.executions.records import Execution


def prediction(execution: Execution) -> dict[str, Any]:
    """The answer to a prediction."""
    usage = execution.usage
    document: dict[str, Any] = {
        "id": execution.id,
        "request_id": execution.request_id,
        "program": execution.program,
        "version": execution.version,
        "status": execution.status,
        "outputs": execution.outputs,
        "model": execution.model,
        "usage": {
            "input_tokens": usage.get("input_tokens"),
            "output_tokens": usage.get("output_tokens"),
            "total_tokens": usage.get("total_tokens"),
        },
        "cost_usd": execution.cost_usd,
        "saved_usd": execution.saved_usd,
        "cache": execution.cache,
        "duration_ms": execution.duration_ms,
        "overhead_ms": execution.overhead_ms,
    }
    if execution.error is not None:
        document["error"] = {
            "kind": execution.error.kind,
            "code": execution.error.code,
            "message": execution.error.message,
        }
    if execution.violations:
        document["violations"] = execution.violations
    if execution.simulated:
        document["simulated"] = True
    return document
