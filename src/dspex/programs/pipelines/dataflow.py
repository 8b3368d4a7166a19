"""How values flow through a pipeline. Pure, and the same for every executor: that is what makes them equal."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

from dspex.programs.conditions.evaluation import holds
from dspex.programs.pipelines.records import Pipeline, Reference, Step
from dspex.signatures.records import Field
from dspex.signatures.types import STR, allows_none

# By step: its outputs, or None when it was skipped. The pipeline's inputs go by the name None.
Values = dict[str | None, Mapping[str, Any] | None]
_ABSENT: Final = object()


class Skipped(Struct, frozen=True):
    """Stands for the outputs of a step that did not run."""

    reason: str


def begin(pipeline: Pipeline, inputs: Mapping[str, Any]) -> Values:
    """What is known before any step: typed inputs, where an optional one that was left out is null."""
    return {None: {field.name: inputs.get(field.name) for field in pipeline.inputs}}


def inputs_of(step: Step, values: Values) -> dict[str, Any] | Skipped:
    """What a step is called with, once all that it needs is settled; or why it is not called.

    Where all sources of an input were skipped, it keeps its default, or is null where its type allows that; else the
    step is skipped as well. Null for a field that does not allow it keeps the default, if there is one.
    """
    if step.when is not None and not holds(step.when, lambda names: _look(names, values)):
        return Skipped("its condition does not hold")
    given: dict[str, Any] = {}
    for field in step.signature.inputs:
        sources = step.inputs.get(field.name)
        if sources is None:
            continue
        value = _first(sources, values)
        if value is not _ABSENT and value is not None:
            given[field.name] = _shaped(value, field)
            continue
        if value is _ABSENT and not field.has_default and not allows_none(field.type):
            return Skipped(f"{' or '.join(map(str, sources))}, which it needs, is absent")
        if not field.has_default or (value is None and allows_none(field.type)):
            given[field.name] = None
    return given


def outputs_of(pipeline: Pipeline, values: Values) -> dict[str, Any]:
    """The outputs of the whole; null for those whose steps were skipped."""
    found = {name: _first(sources, values) for name, sources in pipeline.outputs.items()}
    return {name: None if value is _ABSENT else value for name, value in found.items()}


def outputs_from(pipeline: Pipeline, step: str) -> dict[str, list[str]]:
    """By field of a step, the outputs of the whole that it is and nothing else can be."""
    found: dict[str, list[str]] = {}
    for name, sources in pipeline.outputs.items():
        if len(sources) == 1 and sources[0].step == step:
            found.setdefault(sources[0].field, []).append(name)
    return found


def _first(sources: Iterable[Reference], values: Values) -> Any:
    for source in sources:
        outputs = values[source.step]
        if outputs is not None:
            return outputs.get(source.field)
    return _ABSENT


def _look(names: tuple[str, ...], values: Values) -> tuple[Any, int]:
    inputs = values[None] or {}
    if names[0] in inputs:
        return inputs[names[0]], 1
    outputs = values.get(names[0]) or {}
    return outputs.get(names[1]), 2


def _shaped(value: Any, field: Field) -> Any:
    """DSPy numbers the texts of a list for a field that is text, and fails on a list of anything else."""
    if field.type == STR and isinstance(value, list) and not all(isinstance(one, str) for one in value):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value
