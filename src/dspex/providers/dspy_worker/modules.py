"""From our definition to a real DSPy module: the published mapping, in code."""

from collections.abc import Mapping
from typing import Any

import dspy
from dspy.adapters import Adapter

from dspex.kit.errors import Invalid
from dspex.signatures.annotations import annotations_of, default_value, field_constraints
from dspex.signatures.records import Field, Signature

PLACEHOLDER_KEY = "not-a-key"
SIMULATOR = "simulator/"
MODULES: dict[str, type[dspy.Module]] = {"predict": dspy.Predict, "chain_of_thought": dspy.ChainOfThought}


def signature_class(signature: Signature) -> type[dspy.Signature]:
    """The `dspy.Signature` that `signature` stands for: the same fields, order, types, texts, defaults."""
    annotations = annotations_of(signature)
    fields: dict[str, tuple[Any, Any]] = {}
    for make, group in ((dspy.InputField, signature.inputs), (dspy.OutputField, signature.outputs)):
        for field in group:
            annotation = annotations[field.name]
            fields[field.name] = (annotation, make(**_arguments(field, annotation)))
    return dspy.Signature(fields, signature.instructions)  # type: ignore[no-any-return,call-overload,unused-ignore]


def _arguments(field: Field, annotation: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = dict(field_constraints(field))
    if field.description is not None:
        arguments["desc"] = field.description
    if field.has_default:
        arguments["default"] = default_value(field, annotation)
    return arguments


def module_of(kind: str, signature: type[dspy.Signature], state: Mapping[str, Any] | None) -> dspy.Module:
    """A fresh module with the saved state loaded. Raises what DSPy raises for a state that does not fit."""
    module: dspy.Module = MODULES[kind](signature)
    if state is not None:
        try:
            module.load_state(dict(state))
        except KeyError as missing:
            raise Invalid(
                f"The saved state lacks {missing}: it is of another module or signature than this {kind}.",
                code="bad_state",
            ) from None
    return module


def predictor_of(module: dspy.Module) -> dspy.Predict:
    """The single predictor of a Predict or a ChainOfThought."""
    (predictor,) = module.predictors()
    return predictor


def without_lms(state: Mapping[str, Any]) -> dict[str, Any]:
    """The saved state without the LMs it was saved with: the registry decides where calls go."""

    def without_lm(value: Any) -> Any:
        return {**value, "lm": None} if isinstance(value, dict) and "demos" in value else value

    return dict(without_lm({key: without_lm(value) for key, value in state.items()}))


def provider_model(model: str) -> str:
    """As DSPy is given it: simulator models are an unknown OpenAI model to it."""
    return "openai/" + model.removeprefix(SIMULATOR) if model.startswith(SIMULATOR) else model


def language_model(model: str, options: Mapping[str, Any]) -> dspy.LM:
    """The LM as a DSPy user would build it."""
    return dspy.LM(provider_model(model), api_key=PLACEHOLDER_KEY, cache=False, num_retries=0, **options)


def adapter_of(name: str) -> Adapter:
    return dspy.JSONAdapter() if name == "json" else dspy.ChatAdapter()
