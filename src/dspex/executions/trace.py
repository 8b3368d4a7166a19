"""The trace of an execution: its calls with the messages that were sent, derived and not stored."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from dspex.executions.native.program import CompiledProgram, load
from dspex.executions.records import Execution
from dspex.kit.errors import DspexError
from dspex.programs.ports import ProgramReader
from dspex.signatures.document import signature_from_document
from dspex.signatures.validation import InputValidator


async def trace(execution: Execution, programs: ProgramReader) -> list[dict[str, Any]]:
    """Each call as stored, with `messages` and `options` as they were sent.

    The same code fills the same compiled document with the same inputs, so the messages are those of then.
    Both are None when the compiled document is gone or of another release.
    """
    digest = execution.compiled_digest
    compiled = await programs.compiled(execution.project, digest) if execution.calls and digest else None
    sent: dict[str, Mapping[str, Any]] = {}
    if compiled is not None:
        try:
            sent = _requests(compiled.document, execution)
        except DspexError:
            sent = {}
    unknown = {"messages": None, "options": None}
    return [{**call, **sent.get(call.get("adapter") or "", unknown)} for call in execution.calls]


def _requests(document: Mapping[str, Any], execution: Execution) -> dict[str, Mapping[str, Any]]:
    """What each stage sends, by adapter."""
    program: CompiledProgram = load(document, execution.model or "")
    inputs = InputValidator(signature_from_document(document["signature"])).validate(execution.inputs)
    changed = {name: value for name, value in execution.parameters.items() if name != "rollout_id"}
    if "stop" in changed:
        changed["stop"] = tuple(changed["stop"])
    requests: dict[str, Mapping[str, Any]] = {}
    for stage in program.stages:
        options = asdict(replace(stage.options, **changed))
        requests[stage.adapter] = {
            "messages": [{"role": one.role, "content": one.content} for one in stage.template.fill(inputs)],
            "options": {name: value for name, value in options.items() if value not in (None, ())},
        }
    return requests
