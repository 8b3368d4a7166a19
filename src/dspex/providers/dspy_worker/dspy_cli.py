"""What dspy-cli makes of a module: the inputs that it asks for, and what becomes of the value that forward returns.

A forward with annotated parameters and return is typed: values are checked, what it does not know is left out. Any
other takes what it is sent, as it is.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import dspy
from msgspec import Struct, field
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from dspex.executions.errors import ProgramFailed
from dspex.kit.errors import Invalid
from dspex.providers.dspy_worker.pythonic import ANY, method_of, parse_field, schema_or_any

PACKAGE, GATEWAYS = "dspy_cli", "dspy_cli.gateway"
_JSON: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


class Contract(Struct, frozen=True):
    """`document` is a signature; without outputs in it, any are taken.

    `converters` make of inputs what dspy-cli hands to forward; `outputs` are those that forward promises.
    """

    document: Mapping[str, Any]
    typed: bool
    converters: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    outputs: Mapping[str, TypeAdapter[Any]] = field(default_factory=dict)

    def answer(self, value: Any) -> dict[str, Any]:
        """The outputs as JSON values. Raises ProgramFailed (code wrong_outputs) for what forward did not promise."""
        found = _members(value, self.outputs)
        try:
            if not self.outputs:
                plain: dict[str, Any] = _JSON.dump_python(found, mode="json", by_alias=True)
                return plain
            return {
                name: adapter.dump_python(adapter.validate_python(found[name]), mode="json", by_alias=True)
                for name, adapter in self.outputs.items()
            }
        except KeyError as missing:
            raise ProgramFailed(
                f"The program returned no {missing}, which its forward promises.", code="wrong_outputs"
            ) from None
        except (ValidationError, PydanticSerializationError) as error:
            raise ProgramFailed(
                f"The program returned something else than its forward promises: {str(error)[:2000]}",
                code="wrong_outputs",
            ) from None


def contract_of(module: dspy.Module) -> Contract:
    """Raises Invalid (code signature_needed) when nothing says what it takes."""
    method = method_of(module)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    try:
        hints = get_type_hints(method)
    except Exception:
        # Names that only a type checker sees.
        hints = {}
    promised = _promised(hints.pop("return"), module) if "return" in hints else None
    open_ended = any(one.kind is one.VAR_KEYWORD for one in parameters)
    if promised is None or open_ended or not hints:
        return Contract({"inputs": _untyped(module, parameters), "outputs": []}, False)
    return Contract(
        {
            "inputs": [_typed(name, annotation) for name, annotation in hints.items()],
            "outputs": [_output(name, annotation) for name, annotation in promised.items()],
        },
        True,
        {name: _converter(annotation) for name, annotation in hints.items() if annotation is not Any},
        {name: TypeAdapter(annotation) for name, annotation in promised.items()},
    )


def _typed(name: str, annotation: Any) -> dict[str, Any]:
    """Required, whatever default forward has; what may be None is None when it is left out."""
    wanted = {"name": name, "type": "str" if _is_dspys(annotation) else schema_or_any(name, annotation)}
    try:
        document = parse_field(wanted)
    except Invalid:
        document = parse_field({"name": name, "type": ANY})
    if get_origin(annotation) in (Union, UnionType) and type(None) in get_args(annotation):
        document["default"] = None
    return document


def _untyped(module: dspy.Module, parameters: list[inspect.Parameter]) -> list[dict[str, Any]]:
    named = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    # One that may be None may be left out, and forward has its default.
    inputs = [{"name": one.name, "type": ANY if one.default is one.empty else "Any | None"} for one in named]
    if not inputs:
        inputs = [{"name": name, "type": ANY} for name in _first_signature(module).get("inputs", ())]
    if not inputs:
        raise Invalid(
            "forward names no input; give it at least one parameter with a name.", code="signature_needed"
        )
    return inputs


def _promised(annotation: Any, module: dspy.Module) -> dict[str, Any] | None:
    """The outputs that a return annotation promises; none for a prediction, None where it says nothing of them."""
    if annotation is dspy.Prediction or get_origin(annotation) is dspy.Prediction:
        return {}
    if annotation is dict or get_origin(annotation) is dict:
        return None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {name: one.annotation for name, one in annotation.model_fields.items()}
    if getattr(annotation, "__annotations__", None):
        return dict(get_type_hints(annotation))
    own = _first_signature(module).get("outputs", ())
    return {own[0] if len(own) == 1 else "result": annotation}


def _first_signature(module: dspy.Module) -> dict[str, list[str]]:
    """The names of the inputs and outputs of the first predictor."""
    for _, predictor in module.named_predictors():
        found = predictor.signature
        return {"inputs": list(found.input_fields), "outputs": list(found.output_fields)}
    return {}


def _output(name: str, annotation: Any) -> dict[str, Any]:
    try:
        return {**parse_field({"name": name, "type": schema_or_any(name, annotation)})}
    except Invalid:
        return {"name": name, "type": ANY}


def _is_dspys(annotation: Any) -> bool:
    """Images and the like, which are sent as an address or as data."""
    return str(getattr(annotation, "__module__", "")).partition(".")[0] == "dspy"


def _converter(annotation: Any) -> Callable[[Any], Any]:
    if _is_dspys(annotation):
        return lambda value: annotation(value) if isinstance(value, str | dict) else value
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    # dspy-cli hands models over as dicts, and that is what its projects are written for.
    return lambda value: adapter.dump_python(adapter.validate_python(value, from_attributes=True))


def _members(value: Any, promised: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(value, dspy.Prediction):
        return dict(value.toDict())
    if hasattr(value, "__dict__"):
        return dict(vars(value))
    if isinstance(value, dict):
        return value
    return {next(iter(promised)) if len(promised) == 1 else "result": value}


def offer_gateways() -> None:
    """Lets modules name the gateway classes of dspy-cli where that is not installed; none of them is ever run."""
    if PACKAGE in sys.modules or importlib.util.find_spec(PACKAGE) is not None:
        return
    package, gateways = ModuleType(PACKAGE), ModuleType(GATEWAYS)
    base = type("Gateway", (), {"setup": lambda self: None, "shutdown": lambda self: None})
    api = type("APIGateway", (base,), {"path": None, "method": "POST", "requires_auth": True})
    made = {
        "Gateway": base,
        "APIGateway": api,
        "IdentityGateway": type("IdentityGateway", (api,), {}),
        "CronGateway": type("CronGateway", (base,), {"schedule": ""}),
        "PipelineInputs": dict[str, Any],
        "PipelineOutput": dict[str, Any],
    }
    gateways.__dict__.update(made)
    package.__dict__.update(gateway=gateways, __path__=[])
    sys.modules.update({PACKAGE: package, GATEWAYS: gateways})
