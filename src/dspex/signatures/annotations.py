"""The published table: each of our types is exactly one Python annotation, the one DSPy is given."""

import datetime
import warnings
from typing import Any, Literal, Union

import pydantic
from pydantic import BaseModel, TypeAdapter

from dspex.kit.errors import Invalid, Problem
from dspex.signatures.constraints import in_order
from dspex.signatures.records import Field, Signature
from dspex.signatures.types import (
    Constraint,
    DictOf,
    Embedding,
    FieldType,
    ListOf,
    LiteralOf,
    ObjectField,
    ObjectOf,
    Probability,
    ReasoningChain,
    Scalar,
    UnionOf,
)

_SCALARS: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "any": Any,
    "date": datetime.date,
    "datetime": datetime.datetime,
    "none": type(None),
}


class Models:
    """The pydantic models of one signature, made on first use; a name stands for one shape only."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[str, type[BaseModel]]] = {}

    def model_of(self, shape: ObjectOf) -> type[BaseModel]:
        """Raises Invalid (code bad_signature) when another shape already has this name."""
        # repr, because a default or literal 1 equals True in Python
        known = self._made.get(shape.name)
        if known is not None:
            if known[0] != repr(shape):
                raise Invalid(
                    f"Two objects of this signature are called {shape.name!r} but differ; "
                    "give one of them another title.",
                    code="bad_signature",
                    problems=[Problem("", "duplicate_title", f"{shape.name!r} stands for two shapes")],
                )
            return known[1]
        model = self._make(shape)
        self._made[shape.name] = (repr(shape), model)
        return model

    def _make(self, shape: ObjectOf) -> type[BaseModel]:
        members = {
            member.name: (annotation_of(member.value_type, self), _model_field(member))
            for member in shape.fields
        }
        with warnings.catch_warnings():
            # A member called `copy` or `json` works: values live on the instance, in front of the method.
            warnings.filterwarnings("ignore", message="Field name .* shadows an attribute")
            made: type[BaseModel] = pydantic.create_model(  # type: ignore[call-overload]
                shape.name, __doc__=shape.description, **members
            )
            return made


def _model_field(member: ObjectField) -> Any:
    arguments: dict[str, Any] = dict(member.constraints)
    if not member.required:
        # A default is JSON: a date is still its text..
        arguments |= {"default": member.default, "validate_default": member.default is not None}
    return pydantic.Field(description=member.description, **arguments)


def annotation_of(field_type: FieldType, models: Models | None = None) -> Any:
    """The annotation DSPy is given. Without `models`, nested objects become models of their own."""
    models = models or Models()
    match field_type:
        case Scalar(name):
            return _SCALARS[name]
        case ListOf(item):
            return list[annotation_of(item, models)]  # type: ignore[misc]
        case DictOf(value):
            return dict[str, annotation_of(value, models)]  # type: ignore[misc]
        case UnionOf(options):
            return Union[tuple(annotation_of(option, models) for option in options)]  # noqa: UP007
        case LiteralOf(values):
            return Literal[values]
        case ObjectOf():
            return models.model_of(field_type)
        case Embedding():
            return list[float]
        case Probability():
            return float
        case ReasoningChain():
            return list[str]


def annotations_of(signature: Signature, models: Models | None = None) -> dict[str, Any]:
    """By field name, inputs first; equal objects share one model."""
    models = models or Models()
    return {
        field.name: annotation_of(field.type, models) for field in (*signature.inputs, *signature.outputs)
    }


def field_constraints(field: Field) -> dict[str, Constraint]:
    """The constraints DSPy is given for a whole field; a probability brings its 0 and 1 where none is set."""
    own = dict(field.constraints)
    if isinstance(field.type, Probability):
        if not own.keys() & {"gt", "ge"}:
            own["ge"] = 0
        if not own.keys() & {"lt", "le"}:
            own["le"] = 1
        return dict(in_order(own))
    return own


def default_value(field: Field, annotation: Any) -> Any:
    """A fresh Python value of the field's default: dates and models made from their JSON.

    The field must have a default, which was checked against its type when the signature was read.
    """
    return TypeAdapter(annotation).validate_python(field.default)
