"""A pipeline as the `config` of a Definition, and back.

    {"steps": [{"name", "signature", "module", "config", "adapter", "lm": {"alias", "model", "options"},
                "inputs": {field: [source, ...]}, "when", "on_failure"}, ...],
     "outputs": {name: [source, ...]}, and options of the whole: "pool", "idempotent"}

A source is the name of an input, or "step.field". The wires are all there: nothing is found by its name any more.
"""

from collections.abc import Mapping
from typing import Any

from dspex.kit.records import asdict
from dspex.programs.conditions.syntax import parse_condition
from dspex.programs.pipelines.graph import in_order
from dspex.programs.pipelines.records import Pipeline, Reference, Step, named_steps
from dspex.programs.pipelines.states import of_step
from dspex.programs.records import Definition, LanguageModelChoice
from dspex.programs.rules import answers_of
from dspex.signatures.document import signature_from_document, signature_to_document


def config_of(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "steps": [_step_document(step) for step in pipeline.steps],
        "outputs": _sources_document(pipeline.outputs),
    }


def _step_document(step: Step) -> dict[str, Any]:
    lm = asdict(step.lm)
    return {
        "name": step.name,
        "signature": signature_to_document(step.signature),
        "module": step.module,
        "config": step.config,
        "adapter": step.adapter,
        "lm": {**lm, "options": dict(sorted(lm["options"].items()))},
        "inputs": _sources_document(step.inputs),
        "when": step.source,
        "on_failure": step.on_failure,
    }


def _sources_document(sources: Mapping[str, tuple[Reference, ...]]) -> dict[str, list[str]]:
    return {name: [str(one) for one in of] for name, of in sources.items()}


def pipeline_of(signature: Mapping[str, Any], config: Mapping[str, Any]) -> Pipeline:
    """What `config_of` was made of; `signature` is the document of the whole's."""
    steps = tuple(_step(one) for one in config["steps"])
    names = frozenset(step.name for step in steps)
    needs = {
        step.name: named_steps(step.when, names)
        | {one.step for one in step.references() if one.step is not None}
        for step in steps
    }
    whole = signature_from_document(signature)
    return Pipeline(whole.inputs, steps, _sources(config["outputs"]), needs, in_order(needs))


def _step(document: Mapping[str, Any]) -> Step:
    signature = signature_from_document(document["signature"])
    when = document["when"]
    return Step(
        name=document["name"],
        signature=signature,
        answers=answers_of(signature, document["module"], document["config"]),
        module=document["module"],
        adapter=document["adapter"],
        lm=LanguageModelChoice(**document["lm"]),
        config=document["config"],
        inputs=_sources(document["inputs"]),
        when=None if when is None else parse_condition(when),
        source=when,
        on_failure=document["on_failure"],
    )


def _sources(document: Mapping[str, Any]) -> dict[str, tuple[Reference, ...]]:
    return {name: tuple(_reference(text) for text in texts) for name, texts in document.items()}


def _reference(text: str) -> Reference:
    step, dot, field = text.rpartition(".")
    return Reference(step if dot else None, field)


def step_definitions(definition: Definition) -> dict[str, Definition]:
    """Each step of a pipeline as if it were a program of its own."""
    return {
        one["name"]: Definition(
            one["signature"],
            one["module"],
            one["adapter"],
            LanguageModelChoice(**one["lm"]),
            of_step(definition.state, one["name"]),
            config=one["config"],
            executor=definition.executor,
        )
        for one in definition.config["steps"]
    }
