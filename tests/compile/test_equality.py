"""Native execution is DSPy: the same requests on the wire, the same values, the same errors.

Each example is one random program, compiled by the worker's own code, and several calls of it, each held
against DSPy itself.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from dspex.executions.native.answers import DEEPEST
from dspex.executions.native.program import load
from dspex.kit.json import nests_deeper_than
from dspex.providers.dspy_worker.compile import compile_all
from dspex.providers.dspy_worker.modules import adapter_of, language_model, module_of, signature_class
from dspex.signatures.document import signature_to_document
from dspex.signatures.records import Signature
from dspex.signatures.types import STR
from dspex.signatures.validation import InputValidator
from dspex.signatures.values import outputs_to_json
from tests.compile import ours, strategies, theirs

TOO_DEEP = "RecursionError or ValueError"
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("openai/gpt-4o-mini", {"temperature": 0.0, "max_tokens": 1000}),
    ("openai/some-local-model", {"temperature": 0.7}),
    ("openai/gpt-5-mini", {}),
    ("groq/llama-3.1-8b-instant", {"max_tokens": 50, "top_p": 0.9, "seed": 7, "stop": ["END"]}),
    ("ollama/llama3", {"max_tokens": 10}),
]


def same(left: Any, right: Any) -> bool:
    """Equal in value and in type; models by class name and fields, since each side has its own classes."""
    if isinstance(left, BaseModel) and isinstance(right, BaseModel):
        return type(left).__name__ == type(right).__name__ and same(dict(left), dict(right))
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    if isinstance(left, list):
        return len(left) == len(right) and all(
            same(one, other) for one, other in zip(left, right, strict=True)
        )
    if isinstance(left, Mapping):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def saved_state(signature: Signature, module: str, demos: list[dict[str, Any]]) -> dict[str, Any]:
    """What DSPy saves for a module with these demos."""
    real = module_of(module, signature_class(signature), None)
    for predictor in real.predictors():
        predictor.demos = copy.deepcopy(demos)
    return real.dump_state()


@settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
async def test_native_execution_equals_dspy(data: st.DataObject) -> None:
    signature = data.draw(strategies.signatures(), label="signature")
    kind = data.draw(st.sampled_from(["predict", "chain_of_thought"]))
    adapter = data.draw(st.sampled_from(["chat", "chat", "json"]))
    model, options = data.draw(st.sampled_from(MODELS))
    demos = data.draw(strategies.demos(signature), label="demos")
    definition = {
        "signature": signature_to_document(signature),
        "module": kind,
        "adapter": adapter,
        "lm": {"alias": "main", "model": model, "options": options},
        "state": saved_state(signature, kind, demos),
    }
    (outcome,) = compile_all([definition])
    assert "refused" not in outcome, outcome
    program = load(outcome["document"], ours.ALIAS)

    real_module = module_of(kind, signature_class(signature), definition["state"])
    lm, real_adapter = language_model(model, options), adapter_of(adapter)
    outputs = [(field.name, field.type) for field in signature.outputs]
    if kind == "chain_of_thought":
        outputs = [("reasoning", STR), *outputs]
    validator = InputValidator(signature)
    for _ in range(6):
        inputs = data.draw(strategies.inputs(signature), label="inputs")
        bodies = data.draw(strategies.completions(outputs, adapter == "json"), label="bodies")
        typed = validator.validate(inputs)
        expected = theirs.run(real_module, lm, real_adapter, typed, bodies)
        actual, execution = await ours.execute(program, signature, inputs, bodies, kind)
        note(f"theirs: {expected}\nours: {actual}")
        event(f"{len(expected.wire)} requests, {expected.error or 'values'}")
        assert actual.wire == expected.wire
        if expected.values is not None and nests_deeper_than(outputs_to_json(expected.values), DEEPEST):
            # The one thing we refuse that DSPy takes.
            assert actual.error == TOO_DEEP
            continue
        assert actual.error == expected.error
        if expected.values is not None:
            assert actual.values is not None
            assert same(dict(actual.values), dict(expected.values))
            assert same(dict(execution.outputs or {}), outputs_to_json(expected.values))
