"""A compiled pipeline, made ready to run: each step a compiled program."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from pydantic import TypeAdapter

from dspex.executions.native.answers import Answer
from dspex.executions.native.program import CompiledProgram, load
from dspex.kit.errors import Conflict, Invalid, Problem
from dspex.programs.pipelines.canonical import pipeline_of
from dspex.programs.pipelines.records import Pipeline, Step
from dspex.programs.records import COMPILED_FORMAT
from dspex.signatures.annotations import Models, annotation_of, default_value
from dspex.signatures.records import Signature
from dspex.signatures.types import STR
from dspex.signatures.validation import OutputChecker


class CompiledStep(Struct, frozen=True):
    """`outputs` and `checker` are what replies are read by; `defaults` are typed values of inputs, `texts` the names of

    those that are text.
    """

    plan: Step
    program: CompiledProgram
    outputs: Signature
    checker: OutputChecker
    defaults: Mapping[str, Any]
    texts: frozenset[str]
    forms: Mapping[str, TypeAdapter[Any]]

    def rendered(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the step is called with, as its prompt takes it: with defaults, and lists as DSPy writes them."""
        return {
            name: numbered(value) if name in self.texts and isinstance(value, list) else value
            for name, value in {**self.defaults, **given}.items()
        }

    def values(self, answer: Answer) -> Mapping[str, Any]:
        """Typed outputs; what was read in another process came back as JSON."""
        if answer.values is not None:
            return answer.values
        return self.typed(answer.outputs)

    def typed(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Typed outputs from the JSON that they were recorded as."""
        return {name: self.forms[name].validate_python(value) for name, value in outputs.items()}


class CompiledPipeline(Struct, frozen=True):
    """Shared by all requests."""

    plan: Pipeline
    steps: Mapping[str, CompiledStep]

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Raises Invalid naming every parameter that a step's requests can't carry exactly: they are for all steps."""
        refused: dict[str, list[str]] = {}
        for name, step in self.steps.items():
            for parameter in step.program.unknown_parameters(parameters):
                refused.setdefault(parameter, []).append(name)
        if refused:
            told = "; ".join(f"{parameter} by {', '.join(names)}" for parameter, names in refused.items())
            raise Invalid(
                f"Parameters go to every step of the pipeline, and some steps' models do not take them: {told}.",
                code="unsupported_parameter",
                problems=[
                    Problem(f"/parameters/{parameter}", "unsupported", f"not taken by {', '.join(names)}")
                    for parameter, names in refused.items()
                ],
            )


def load_pipeline(document: Mapping[str, Any], aliases: Mapping[str, str]) -> CompiledPipeline:
    """From the stored document; `aliases` are the steps' models. Raises Conflict for one of another format."""
    if document.get("v") != COMPILED_FORMAT:
        raise Conflict(
            f"The compiled document has format {document.get('v')!r}, this release reads {COMPILED_FORMAT}; "
            "initialize the program again.",
            code="compiled_by_another_release",
        )
    plan = pipeline_of(document["signature"], document["config"])
    named = tuple(replace(one, lm=replace(one.lm, alias=aliases.get(one.name, ""))) for one in plan.steps)
    steps = {one.name: _load(one, document["steps"][one.name], one.lm.alias) for one in named}
    return CompiledPipeline(replace(plan, steps=named), steps)


def _load(step: Step, document: Mapping[str, Any], alias: str) -> CompiledStep:
    models = Models()
    return CompiledStep(
        plan=step,
        program=load(document, alias),
        outputs=step.answers,
        checker=OutputChecker(step.answers),
        defaults={
            field.name: default_value(field, annotation_of(field.type, models))
            for field in step.signature.inputs
            if field.has_default
        },
        texts=frozenset(field.name for field in step.signature.inputs if field.type == STR),
        forms={field.name: TypeAdapter(annotation_of(field.type, models)) for field in step.answers.outputs},
    )


def numbered(texts: list[str]) -> str:
    """A list in a field that is text, as `dspy.adapters.utils.format_field_value` writes it."""
    if not texts:
        return "N/A"
    if len(texts) == 1:
        return _quoted(texts[0])
    return "\n".join(f"[{number}] {_quoted(text)}" for number, text in enumerate(texts, start=1))


def _quoted(text: str) -> str:
    if not any(mark in text for mark in "\n«»"):
        return f"«{text}»"
    indented = text.replace("\n", "\n    ")
    return f"«««\n    {indented}\n»»»"
