"""The trace of an execution: its calls with the messages that were sent, derived and not stored."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from msgspec.structs import replace
from pydantic import ValidationError

from dspex.executions.native.pipeline import CompiledPipeline, load_pipeline
from dspex.executions.native.program import CompiledProgram, load
from dspex.executions.records import Execution
from dspex.kit.errors import DspexError
from dspex.kit.records import asdict
from dspex.programs.pipelines.dataflow import Skipped, begin, inputs_of
from dspex.programs.ports import ProgramReader
from dspex.signatures.document import signature_from_document
from dspex.signatures.validation import InputValidator

_REWRITTEN = {"options": None}
# By step, None where there are none, and adapter.
_Sent = dict[tuple[str | None, str], Mapping[str, Any]]


async def trace(execution: Execution, programs: ProgramReader) -> list[dict[str, Any]]:
    """Each call as stored, with `messages` and `options` as they were sent.

    The same code fills the same compiled document with the same inputs, so the messages are those of then.
    Both are None when the compiled document is gone or of another release. A fallback was sent the same messages;
    its `options` are None, because they depend on what the registry was then.
    """
    digest = execution.compiled_digest
    compiled = await programs.compiled(execution.project, digest) if execution.calls and digest else None
    sent: _Sent = {}
    if compiled is not None and compiled.document.get("executor") != "pool":
        try:
            sent = _requests(compiled.document, execution)
        except DspexError:
            sent = {}
    unknown = {"messages": None, "options": None}
    return [
        {
            **sent.get((call.get("step"), call.get("adapter") or ""), unknown),
            **(_REWRITTEN if call.get("fallback_for") else {}),
            # What was kept wins over what is derived.
            **call,
        }
        for call in execution.calls
    ]


def _requests(document: Mapping[str, Any], execution: Execution) -> _Sent:
    """What each stage sends, by step and adapter."""
    inputs = InputValidator(signature_from_document(document["signature"])).validate(execution.inputs)
    changed = {name: value for name, value in execution.parameters.items() if name != "rollout_id"}
    if "stop" in changed:
        changed["stop"] = tuple(changed["stop"])
    if "steps" not in document:
        return _of_program(load(document, execution.model or ""), inputs, changed, None)
    return _of_pipeline(load_pipeline(document, {}), execution, inputs, changed)


def _of_program(
    program: CompiledProgram, inputs: Mapping[str, Any], changed: Mapping[str, Any], step: str | None
) -> _Sent:
    requests: _Sent = {}
    for stage in program.stages:
        options = asdict(replace(stage.options, **changed))
        requests[step, stage.adapter] = {
            "messages": [{"role": one.role, "content": one.content} for one in stage.template.fill(inputs)],
            "options": {name: value for name, value in options.items() if value not in (None, ())},
        }
    return requests


def _of_pipeline(
    pipeline: CompiledPipeline,
    execution: Execution,
    inputs: Mapping[str, Any],
    changed: Mapping[str, Any],
) -> _Sent:
    """The steps' inputs follow from the inputs and from the outputs that were recorded of the steps before."""
    recorded = {one["name"]: one for one in execution.steps}
    values = begin(pipeline.plan, inputs)
    requests: _Sent = {}
    for name in pipeline.plan.order:
        step, run = pipeline.steps[name], recorded.get(name, {})
        given = inputs_of(step.plan, values)
        with suppress(DspexError):
            if not isinstance(given, Skipped):
                requests |= _of_program(step.program, step.rendered(given), changed, name)
        values[name] = None
        # What was read elsewhere and is of no type any more leaves the steps behind it without messages.
        if run.get("status") == "completed":
            try:
                values[name] = step.typed(run["outputs"])
            except ValidationError:
                break
    return requests
