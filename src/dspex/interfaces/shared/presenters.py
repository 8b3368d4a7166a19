"""How records look to a caller: the same documents over HTTP and on the command line."""

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dspex.configuration.caching import CachePolicy
from dspex.executions.embedding import Embedded
from dspex.executions.records import (
    Execution,
    ExecutionStatistics,
)
from dspex.gateway.records import EmbeddingReply
from dspex.gateway.vectors import numbers
from dspex.kit.records import asdict
from dspex.programs.comparison import Comparison
from dspex.programs.records import Definition, Program, ProgramStatus, Version
from dspex.programs.rules import answers_of
from dspex.signatures.document import open_signature_from_document, signature_to_document
from dspex.signatures.json_schema import input_schema, output_schema
from dspex.signatures.lifecycle import RegisteredSignature

if TYPE_CHECKING:
    # Making so many types takes a node 15 ms of its start.
    from dspex.interfaces.shared import documents as shown


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
    if execution.steps:
        document["steps"] = [step_summary(step) for step in execution.steps]
    if execution.partial is not None:
        document["partial"] = execution.partial
    if execution.simulated:
        document["simulated"] = True
    if execution.stale:
        document["stale"] = True
    return document


def step_summary(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step of a pipeline without its outputs; see `executions.steps.StepRun.to_json`."""
    return {name: value for name, value in step.items() if name != "outputs"}


def accepted(execution: Execution) -> dict[str, Any]:
    """The answer to a prediction that is made later: where it stands."""
    return {
        "id": execution.id,
        "status": execution.status,
        "request_id": execution.request_id,
        "program": execution.program,
        "version": execution.version,
        "created_at": execution.created_at,
    }


def execution(record: Execution) -> "shown.Execution":
    """The whole record, without its trace."""
    return {
        **prediction(record),  # type: ignore[typeddict-item]
        "usage": record.usage,
        "inputs": record.inputs,
        "parameters": record.parameters,
        "metadata": record.metadata,
        "session_id": record.session_id,
        "key_id": record.key_id,
        "executor": record.executor,
        "variant": record.variant,
        "node": record.node,
        "created_at": record.created_at,
        "started_at": record.started_at,
        "completed_at": record.completed_at,
    }


def embeddings(embedded: Embedded, reply: EmbeddingReply, *, packed: bool) -> "shown.Embeddings":
    """`packed` vectors are base64, others lists of numbers."""
    form: Callable[[bytes], Any] = (lambda vector: b64encode(vector).decode()) if packed else numbers
    tokens, execution = reply.usage, embedded.execution
    document: shown.Embeddings = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": form(vector)}
            for index, vector in enumerate(reply.vectors)
        ],
        "model": execution.model or reply.model,
        "usage": {"prompt_tokens": tokens.input_tokens or 0, "total_tokens": tokens.total_tokens or 0},
        "cache": {"hits": embedded.hits, "misses": embedded.misses},
        "cost_usd": execution.cost_usd,
        "saved_usd": execution.saved_usd,
    }
    if execution.simulated:
        document["simulated"] = True
    return document


def traced_execution(record: Execution, calls: Iterable[Mapping[str, Any]]) -> "shown.TracedExecution":
    document: shown.TracedExecution = {**execution(record), "trace": list(calls)}
    if record.steps:
        document["steps"] = record.steps
    return document


def program(record: Program, status: ProgramStatus, version: Version) -> "shown.Program":
    """`version` is the deployed one, or the newest while none is."""
    return {
        "name": record.name,
        "description": record.description,
        "status": status,
        "source": record.source,
        "deployed_version": version.number if version.id == record.deployed_version_id else None,
        "timeout_s": record.settings.timeout_s,
        "on_violation": record.settings.on_violation,
        "cache": _policy(record.settings.cache),
        "rate_limit": None if record.settings.rate_limit is None else asdict(record.settings.rate_limit),
        "budget": None if record.settings.budget is None else asdict(record.settings.budget),
        "alerts": None if record.settings.alerts is None else asdict(record.settings.alerts),
        "gates": None if record.settings.gates is None else asdict(record.settings.gates),
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "archived_at": record.archived_at,
        "version": program_version(version),
    }


def _policy(policy: CachePolicy | None) -> "shown.CachePolicy | None":
    if policy is None:
        return None
    return {
        "mode": policy.mode,
        "max_age_s": policy.max_age_s,
        "stale_if_error_s": policy.stale_if_error_s,
    }


def program_version(version: Version) -> "shown.Version":
    definition = version.definition
    inputs, outputs = schemas(version)
    return {
        "version": version.number,
        "digest": version.digest,
        "status": version.status,
        "error": version.error,
        "executor": version.executor,
        "executor_reason": version.executor_reason,
        "signature": version.signature or definition.signature,
        "module": definition.module,
        "pipeline": _pipeline(definition),
        "adapter": definition.adapter,
        "model": definition.lm.alias,
        "provider_model": definition.lm.model,
        "options": definition.lm.options,
        "state": definition.state,
        "mock": definition.mock,
        "input_schema": inputs,
        "output_schema": outputs,
        "lineage": version.lineage,
        "created_at": version.created_at,
    }


def _pipeline(definition: Definition) -> dict[str, Any] | None:
    if definition.module != "pipeline":
        return None
    steps = [
        {
            **{name: value for name, value in step.items() if name != "lm"},
            "model": step["lm"]["alias"],
            "provider_model": step["lm"]["model"],
            "options": step["lm"]["options"],
        }
        for step in definition.config["steps"]
    ]
    return {"steps": steps, "outputs": definition.config["outputs"]}


def schemas(version: Version) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON Schema of what a version takes and of what it answers."""
    definition = version.definition
    found = version.signature or definition.signature
    if not found:
        # A module of the user's own that was not inspected yet.
        return {"type": "object"}, {"type": "object"}
    signature = open_signature_from_document(found)
    answers = (
        answers_of(signature, "chain_of_thought") if definition.module == "chain_of_thought" else signature
    )
    return input_schema(signature), output_schema(answers) if answers.outputs else {"type": "object"}


def difference(name: str, before: int, after: int, comparison: Comparison) -> "shown.Difference":
    return {
        "program": name,
        "before": before,
        "after": after,
        "same": comparison.same,
        **asdict(comparison),  # type: ignore[typeddict-item]
    }


def statistics(name: str, version: int | None, record: ExecutionStatistics) -> "shown.Statistics":
    return {"program": name, "version": version, **asdict(record)}  # type: ignore[typeddict-item]


def registered_signature(record: RegisteredSignature) -> "shown.Signature":
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
