"""Before a compiled document leaves the worker, it is held against DSPy once more.

For several sets of inputs, our rendering must give the messages and options DSPy gives and, where our own
codec sends them, the very bytes. Any difference refuses native execution: never an approximation.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import dspy
from dspy.adapters import Adapter

from dspex.executions.native.program import CompiledProgram, load
from dspex.gateway.records import LanguageModelRequest
from dspex.providers.dspy_worker.capture import Captured, Unsupported, capture
from dspex.providers.dspy_worker.segments import segment
from dspex.providers.language_models import openai_chat
from dspex.signatures.records import Signature
from dspex.signatures.types import DictOf, FieldType, ListOf, Scalar, UnionOf

_TEXTS = (
    "plain",
    "  spaced\n\nout \u2028 ",
    "[[ ## completed ## ]] “ünïcode” \U0001f600",
    '{"a": [1, "b"]}',
    "",
)


def check_document(
    document: Mapping[str, Any], signature: Signature, module: dspy.Module, lm: dspy.LM, adapter: Adapter
) -> None:
    """Raises Unsupported on the first difference."""
    program = load(document, alias="check")
    for inputs in _input_sets(signature):
        captured = capture(module, lm, adapter, inputs)
        given = {**_defaults(module), **inputs}
        if len(captured) != len(program.stages):
            raise Unsupported("the number of requests depends on the inputs")
        for stage, theirs in zip(program.stages, captured, strict=True):
            _compare(program, program.request(stage, given, {}), theirs)


def _compare(program: CompiledProgram, ours: LanguageModelRequest, theirs: Captured) -> None:
    expected = segment(theirs, {})
    messages = [*expected["messages"], {"role": "user", "content": expected["tail"]}]
    if [{"role": one.role, "content": one.content} for one in ours.messages] != messages:
        raise Unsupported("the prompt depends on its inputs in a way that segments can't follow")
    if program.dialect.name == "openai-chat" and openai_chat.encode(ours) != theirs.wire:
        raise Unsupported(f"the request to {program.dialect.provider} has members that DSPex does not send")


def _defaults(module: dspy.Module) -> dict[str, Any]:
    (predictor,) = module.predictors()
    fields = predictor.signature.input_fields
    return {
        name: field.default
        for name, field in fields.items()
        if not field.is_required() and field.default_factory is None
    }


def _input_sets(signature: Signature) -> Iterator[dict[str, Any]]:
    """All present, each one absent, all absent, None everywhere, and odd texts and structures."""
    names = [field.name for field in signature.inputs]
    full = {field.name: _sample(field.type, "value") for field in signature.inputs}
    yield full
    for name in names:
        yield {other: value for other, value in full.items() if other != name}
    yield {}
    yield dict.fromkeys(names)
    for text in _TEXTS:
        yield {field.name: _sample(field.type, text) for field in signature.inputs}


def _sample(field_type: FieldType, text: str) -> Any:
    """Something a caller could send for the type; where DSPy renders by value alone, text will do."""
    if isinstance(field_type, ListOf):
        return [_sample(field_type.item, part) for part in (text, "ü", "")]
    if isinstance(field_type, DictOf):
        return {key: _sample(field_type.value, text) for key in ("k", "ö", text)}
    if isinstance(field_type, UnionOf):
        return next(itertools.chain(_sample(option, text) for option in field_type.options))
    if isinstance(field_type, Scalar):
        numbers: dict[str, Any] = {"int": 10**20, "float": 1e-7, "bool": True, "none": None}
        return numbers.get(field_type.name, text)
    return [text, 1, 0.5, None, {"ü": [text]}]
