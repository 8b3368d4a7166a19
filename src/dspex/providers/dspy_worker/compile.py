"""Compile definitions: render with real DSPy, cut the rendering into segments, check the result."""

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import dspy
import pydantic
from dspy.utils.saving import get_dependency_versions

from dspex.kit.errors import DspexError
from dspex.programs.records import COMPILED_FORMAT, COMPOSED
from dspex.providers.dspy_worker.capture import Captured, Unsupported, capture
from dspex.providers.dspy_worker.checks import check_document
from dspex.providers.dspy_worker.compile_pipeline import compile_pipeline
from dspex.providers.dspy_worker.modules import (
    adapter_of,
    language_model,
    module_of,
    predictor_of,
    signature_class,
    without_lms,
)
from dspex.providers.dspy_worker.segments import options_of, segment
from dspex.signatures.document import signature_from_document, type_to_document
from dspex.signatures.records import Field, Signature
from dspex.signatures.types import STR

PROBES: dict[str, Any] = {"temperature": 0.123, "max_tokens": 16123, "seed": 12345, "stop": ["\u2021stop"]}


def compile_all(definitions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One outcome a definition: {"document", "saved_state"} or {"refused", "kind"}."""
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    logging.getLogger("dspy").setLevel(logging.ERROR)
    return [_outcome(definition) for definition in definitions]


def _outcome(definition: Mapping[str, Any]) -> dict[str, Any]:
    try:
        if COMPOSED in (definition.get("state") or {}):
            raise Unsupported("an optimizer composed it of several programs")
        if definition["module"] == "pipeline":
            return compile_pipeline(definition, _outcome)
        return _compile(definition)
    except Unsupported as refusal:
        return {"refused": str(refusal), "kind": "unsupported"}
    except DspexError as error:
        return {"refused": error.message, "kind": "invalid"}
    except Exception as error:
        # DSPy says no in many ways (KeyError for a state that does not fit, its own errors for LM
        # options, pydantic's for annotations): each is an answer about the definition, not a crash.
        return {"refused": f"DSPy refuses it: {type(error).__name__}: {error}", "kind": "invalid"}


def _compile(definition: Mapping[str, Any]) -> dict[str, Any]:
    signature = signature_from_document(definition["signature"])
    if ((definition["lm"].get("options") or {}).get("n") or 1) != 1:
        raise Unsupported("n > 1: natively a request gets one reply; send it several times")
    if definition["module"] == "chain_of_thought" and any(
        one.name == "reasoning" for one in signature.inputs
    ):
        raise Unsupported(
            "a chain of thought writes `reasoning` itself; give the input of that name another one"
        )
    state = _state(definition)
    lm = language_model(definition["lm"]["model"], definition["lm"].get("options") or {})
    adapter = adapter_of(definition["adapter"])
    module = module_of(definition["module"], signature_class(signature), state)
    predictor = predictor_of(module)

    sentinels = {field.name: _sentinel(index) for index, field in enumerate(signature.inputs)}
    captured = capture(module, lm, adapter, sentinels)
    names = ("json",) if definition["adapter"] == "json" else ("chat", "json")
    if len(captured) != len(names):
        raise Unsupported(f"DSPy made {len(captured)} requests where {len(names)} were expected")
    stages = [{"adapter": name, **segment(one, sentinels)} for name, one in zip(names, captured, strict=True)]
    document = {
        "v": COMPILED_FORMAT,
        "made_by": _versions(),
        "model": definition["lm"]["model"],
        # So that a trace can type an execution's inputs again, also one without a program.
        "signature": definition["signature"],
        "dialect": _dialect(captured[0]),
        "parameters": _parameters(module, lm, adapter, sentinels, captured),
        "outputs": [_output(field) for field in _outputs(signature, predictor)],
        "stages": stages,
    }
    check_document(document, signature, module, lm, adapter)
    saved = module.dump_state()
    saved["metadata"] = {"dependency_versions": get_dependency_versions()}
    return {"document": document, "saved_state": saved}


def _state(definition: Mapping[str, Any]) -> Mapping[str, Any] | None:
    state = definition.get("state")
    return None if state is None else without_lms(state)


def _sentinel(index: int) -> str:
    # Private-use characters: no prompt of DSPy and no demo of a sane author contains them in this order.
    return f"\uf8d0\uf8d1{index}\uf8d2"


def _versions() -> dict[str, str]:
    from dspy._vendor.lm15._version import __version__ as lm15_version

    return {
        "dspy": version("dspy"),
        "lm15": lm15_version,
        "pydantic": pydantic.VERSION,
        "json_repair": version("json-repair"),
        "regex": version("regex"),
    }


def _dialect(one: Captured) -> dict[str, str]:
    return {
        "name": one.dialect,
        "provider": one.provider,
        "model": one.wire_model,
        "max_tokens_field": one.max_tokens_field,
        "instruction_role": one.instruction_role,
    }


def _parameters(
    module: dspy.Module, lm: dspy.LM, adapter: Any, inputs: Mapping[str, Any], plain: Sequence[Captured]
) -> list[str]:
    """Which request parameters change exactly the option of their name, found by trying each."""
    allowed = []
    for name, probe in PROBES.items():
        expected = tuple(probe) if isinstance(probe, list) else probe
        try:
            probed = capture(module, lm, adapter, inputs, {name: probe})
        except Exception as refusal:
            logging.getLogger(__name__).info("parameter %s is not supported here: %s", name, refusal)
            continue
        if len(probed) == len(plain) and all(
            options_of(changed.request) == {**options_of(before.request), name: _listed(expected)}
            and changed.request.messages == before.request.messages
            for changed, before in zip(probed, plain, strict=True)
        ):
            allowed.append(name)
    return allowed


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _outputs(signature: Signature, predictor: dspy.Predict) -> list[Field]:
    """The outputs in the order DSPy parses them; a chain of thought has `reasoning` in front."""
    ours = {field.name: field for field in signature.outputs}
    return [ours.get(name) or Field(name=name, type=STR) for name in predictor.signature.output_fields]


def _output(field: Field) -> dict[str, Any]:
    document: dict[str, Any] = {"name": field.name, "type": type_to_document(field.type)}
    if field.has_default:
        document["default"] = field.default
    return document
