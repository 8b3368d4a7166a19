"""How records look to a caller: the same documents over HTTP and on the command line."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from dspex.executions.catalog import with_reasoning
from dspex.executions.records import CostLine, Execution, ExecutionStatistics
from dspex.interfaces.shared import documents as shown
from dspex.programs.comparison import Comparison
from dspex.programs.records import Definition, Program, ProgramStatus, Version
from dspex.signatures.document import signature_from_document, signature_to_document
from dspex.signatures.json_schema import input_schema, output_schema
from dspex.signatures.lifecycle import RegisteredSignature


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
            "type": execution.error.type,
            "message": execution.error.message,
        }
    if execution.violations:
        document["violations"] = execution.violations
    if execution.simulated:
        document["simulated"] = True
    return document


def execution(record: Execution) -> shown.Execution:
    """The whole record, without its trace."""
    return {
        **prediction(record),  # type: ignore[typeddict-item]
        "usage": record.usage,
        "inputs": record.inputs,
        "parameters": record.parameters,
        "metadata": record.metadata,
        "session_id": record.session_id,
        "executor": record.executor,
        "variant": record.variant,
        "node": record.node,
        "created_at": record.created_at,
        "started_at": record.started_at,
        "completed_at": record.completed_at,
    }


def traced_execution(record: Execution, calls: Iterable[Mapping[str, Any]]) -> shown.TracedExecution:
    return {**execution(record), "trace": list(calls)}


def program(record: Program, status: ProgramStatus, version: Version) -> shown.Program:
    """`version` is the deployed one, or the newest while none is."""
    return {
        "name": record.name,
        "description": record.description,
        "status": status,
        "source": record.source,
        "deployed_version": version.number if version.id == record.deployed_version_id else None,
        "timeout_s": record.settings.timeout_s,
        "on_violation": record.settings.on_violation,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "archived_at": record.archived_at,
        "version": program_version(version),
    }


def program_version(version: Version) -> shown.Version:
    definition = version.definition
    inputs, outputs = schemas(definition)
    return {
        "version": version.number,
        "digest": version.digest,
        "status": version.status,
        "error": version.error,
        "executor": version.executor,
        "executor_reason": version.executor_reason,
        "signature": definition.signature,
        "module": definition.module,
        "adapter": definition.adapter,
        "model": definition.lm.alias,
        "provider_model": definition.lm.model,
        "options": definition.lm.options,
        "state": definition.state,
        "mock": definition.mock,
        "input_schema": inputs,
        "output_schema": outputs,
        "created_at": version.created_at,
    }


def schemas(definition: Definition) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON Schema of what a version takes and of what it answers."""
    signature = signature_from_document(definition.signature)
    answers = with_reasoning(signature) if definition.module == "chain_of_thought" else signature
    return input_schema(signature), output_schema(answers)


def difference(name: str, before: int, after: int, comparison: Comparison) -> shown.Difference:
    return {
        "program": name,
        "before": before,
        "after": after,
        "same": comparison.same,
        **asdict(comparison),  # type: ignore[typeddict-item]
    }


def statistics(name: str, version: int | None, record: ExecutionStatistics) -> shown.Statistics:
    return {"program": name, "version": version, **asdict(record)}  # type: ignore[typeddict-item]


def costs(lines: Iterable[CostLine]) -> shown.Costs:
    """The lines and their sum."""
    listed = list(lines)
    return {
        "data": [shown.CostLine(**asdict(line)) for line in listed],  # type: ignore[typeddict-item]
        "next_cursor": None,
        "total": {
            "executions": sum(line.executions for line in listed),
            "input_tokens": sum(line.input_tokens for line in listed),
            "output_tokens": sum(line.output_tokens for line in listed),
            "cost_usd": round(sum(line.cost_usd for line in listed), 12),
            "saved_usd": round(sum(line.saved_usd for line in listed), 12),
            "unpriced": sum(line.unpriced for line in listed),
        },
    }


def registered_signature(record: RegisteredSignature) -> shown.Signature:
    return {
        "name": record.name,
        "version": record.version,
        "status": record.status,
        "digest": record.digest,
        "signature": signature_to_document(record.signature),
        "input_schema": input_schema(record.signature),
        "output_schema": output_schema(record.signature),
        "created_at": record.created_at,
    }
