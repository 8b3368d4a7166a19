"""Compile a pipeline: each step for itself, and the whole as one module for what DSPy saves of it."""

from collections.abc import Callable, Mapping
from typing import Any

from dspy.utils.saving import get_dependency_versions

from dspex.kit.records import asdict
from dspex.programs.pipelines.canonical import pipeline_of, step_definitions
from dspex.programs.records import COMPILED_FORMAT, Definition, LanguageModelChoice
from dspex.programs.rules import nameless
from dspex.providers.dspy_worker.modules import module_of, signature_class
from dspex.providers.dspy_worker.pipeline import build_pipeline


def compile_pipeline(
    document: Mapping[str, Any], outcome_of: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """One outcome, as of any definition: {"document", "saved_state"} or {"refused", "kind"}.

    The compiled document has `steps`, each step's own document by name, and the `config` without the models' aliases.
    """
    definition = Definition(**{**document, "lm": LanguageModelChoice(**document["lm"])})
    parts = step_definitions(definition)
    outcomes = {name: outcome_of(asdict(part)) for name, part in parts.items()}
    refused = {name: one for name, one in outcomes.items() if "refused" in one}
    if refused:
        unsupported = all(one["kind"] == "unsupported" for one in refused.values())
        return {
            "refused": "; ".join(f"step {name!r}: {one['refused']}" for name, one in refused.items()),
            "kind": "unsupported" if unsupported else "invalid",
        }
    pipeline = pipeline_of(definition.signature, definition.config)
    modules = {
        step.name: module_of(step.module, signature_class(step.signature), parts[step.name].state)
        for step in pipeline.steps
    }
    # Nothing is called here, so there is nothing to say about where calls go.
    saved = build_pipeline(pipeline, modules, lambda _: {}).dump_state()
    compiled = [one["document"] for one in outcomes.values()]
    return {
        "document": {
            "v": COMPILED_FORMAT,
            "made_by": compiled[0]["made_by"],
            "signature": definition.signature,
            "config": nameless(definition).config,
            "steps": dict(zip(outcomes, compiled, strict=True)),
        },
        "saved_state": {**saved, "metadata": {"dependency_versions": get_dependency_versions()}},
    }
