"""Inputs and outputs held against their signature: one compiled validator a side, every problem at once."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from pydantic_core import SchemaValidator, ValidationError
from pydantic_core import core_schema as cs

from dspex.kit.errors import Invalid, Problem
from dspex.signatures.annotations import Models, annotations_of
from dspex.signatures.problems import problems_of
from dspex.signatures.records import Field, Signature
from dspex.signatures.strict import strict_schema
from dspex.signatures.types import allows_none


class InputValidator:
    """Built once for a signature, shared by all requests."""

    def __init__(self, signature: Signature) -> None:
        self._validator = SchemaValidator(
            _whole(signature.inputs, Models(), absent_is_none=False, closed=True)
        )

    def validate(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Typed Python values by name, defaults applied; an absent optional input stays absent.

        Raises Invalid (code invalid_inputs) with every problem, as JSON pointers under /inputs.
        """
        return _validated(self._validator, inputs, "inputs")


class OutputChecker:
    """Built once for a signature. DSPy's own parse decides the values; this says what they break."""

    def __init__(self, signature: Signature) -> None:
        models = Models()
        annotations_of(signature, models)
        self._closed = SchemaValidator(_whole(signature.outputs, models, absent_is_none=True, closed=True))
        self._open = SchemaValidator(_whole(signature.outputs, models, absent_is_none=True, closed=False))

    def violations(self, outputs: Mapping[str, Any]) -> tuple[Problem, ...]:
        """What typed outputs break that DSPy lets pass, as JSON pointers under /outputs.

        Further outputs, such as the reasoning of a chain of thought, are not looked at.
        """
        try:
            self._open.validate_python(dict(outputs))
        except ValidationError as error:
            return problems_of(error, "/outputs")
        return ()

    def validate(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Typed Python values from JSON ones; absent ones get their default, or None where that is allowed.

        Raises Invalid (code invalid_outputs) with every problem, as JSON pointers under /outputs.
        """
        return _validated(self._closed, outputs, "outputs")


def _whole(fields: Iterable[Field], models: Models, *, absent_is_none: bool, closed: bool) -> cs.CoreSchema:
    return cs.typed_dict_schema(
        {field.name: _field(field, models, absent_is_none) for field in fields},
        strict=True,
        extra_behavior="forbid" if closed else "ignore",
    )


def _field(field: Field, models: Models, absent_is_none: bool) -> cs.TypedDictField:
    schema = strict_schema(field.type, dict(field.constraints), models)
    if field.has_default:
        default = field.default
        schema = cs.with_default_schema(
            schema, default_factory=lambda: deepcopy(default), validate_default=True
        )
    elif allows_none(field.type):
        if not absent_is_none:
            return cs.typed_dict_field(schema, required=False)
        schema = cs.with_default_schema(schema, default=None)
    return cs.typed_dict_field(schema)


def _validated(validator: SchemaValidator, values: Mapping[str, Any], side: str) -> dict[str, Any]:
    try:
        validated: dict[str, Any] = validator.validate_python(values)
    except ValidationError as error:
        problems = problems_of(error, f"/{side}")
    except RecursionError:
        problems = (Problem(f"/{side}", "wrong_type", "is nested too deeply"),)
    else:
        return validated
    named = ", ".join(list(dict.fromkeys(problem.pointer for problem in problems))[:5])
    count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise Invalid(
        f"The {side} do not fit the signature: {count} at {named}.",
        code=f"invalid_{side}",
        problems=problems,
    )
