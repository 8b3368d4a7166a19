"""JSON Schema (2020-12) of a signature's inputs and outputs, for OpenAPI, tools and forms."""

from collections.abc import Iterable, Mapping
from typing import Any

from dspex.signatures.annotations import field_constraints
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
    allows_none,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SCALARS: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "any": {},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "none": {"type": "null"},
}
_KEYWORDS = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}
_LENGTH_OF = {"string": "Length", "array": "Items", "object": "Properties"}


def input_schema(signature: Signature) -> dict[str, Any]:
    """What a caller sends; fields with a default, and those that allow None, may be left out."""
    required = [
        field.name for field in signature.inputs if not field.has_default and not allows_none(field.type)
    ]
    return _whole(
        signature.inputs, required, f"{signature.name or ''} inputs".strip().capitalize(), signature
    )


def output_schema(signature: Signature) -> dict[str, Any]:
    """What comes back: always every output."""
    required = [field.name for field in signature.outputs]
    return _whole(
        signature.outputs, required, f"{signature.name or ''} outputs".strip().capitalize(), signature
    )


def type_schema(field_type: FieldType, constraints: Mapping[str, Constraint] | None = None) -> dict[str, Any]:
    """One type, with the constraints of its field."""
    return _constrained(_plain(field_type, constraints or {}), constraints or {})


def _whole(fields: Iterable[Field], required: list[str], title: str, signature: Signature) -> dict[str, Any]:
    schema: dict[str, Any] = {"$schema": DIALECT, "title": title, "type": "object"}
    if signature.instructions:
        schema["description"] = signature.instructions
    schema["properties"] = {field.name: _field(field) for field in fields}
    if required:
        schema["required"] = required
    return {**schema, "additionalProperties": False}


def _field(field: Field) -> dict[str, Any]:
    schema = type_schema(field.type, field_constraints(field))
    if field.description is not None:
        schema["description"] = field.description
    if field.has_default:
        schema["default"] = field.default
    return schema


def _plain(field_type: FieldType, constraints: Mapping[str, Constraint]) -> dict[str, Any]:
    match field_type:
        case Scalar(name):
            return dict(_SCALARS[name])
        case ListOf(item):
            return {"type": "array", "items": type_schema(item)}
        case DictOf(value):
            return {"type": "object", "additionalProperties": type_schema(value)}
        case UnionOf(options):
            return {"anyOf": [type_schema(option, constraints) for option in options]}
        case LiteralOf(values):
            return {"enum": list(values)}
        case ObjectOf():
            return _object(field_type)
        case Embedding(None):
            return {"type": "array", "items": {"type": "number"}}
        case Embedding(dimensions):
            exact = {"minItems": dimensions, "maxItems": dimensions}
            return {"type": "array", "items": {"type": "number"}, **exact}
        case Probability():
            return {"type": "number", "minimum": 0, "maximum": 1}
        case ReasoningChain():
            return {"type": "array", "items": {"type": "string"}}


def _constrained(schema: dict[str, Any], constraints: Mapping[str, Constraint]) -> dict[str, Any]:
    kind = schema.get("type")
    if kind in (None, "null", "boolean"):
        return schema  # a union: each option carries them
    for name, value in constraints.items():
        if name in _KEYWORDS:
            schema[_KEYWORDS[name]] = value
        else:
            schema[name.removesuffix("_length") + _LENGTH_OF[kind]] = value
    return schema


def _object(shape: ObjectOf) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "title": shape.name}
    if shape.description is not None:
        schema["description"] = shape.description
    schema["properties"] = {member.name: _member(member) for member in shape.fields}
    required = [member.name for member in shape.fields if member.required]
    return {**schema, "required": required} if required else schema


def _member(member: ObjectField) -> dict[str, Any]:
    schema = type_schema(member.value_type, dict(member.constraints))
    if member.description is not None:
        schema["description"] = member.description
    if member.default is not None:
        schema["default"] = member.default
    return schema
