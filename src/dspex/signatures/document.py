"""A signature as a structured document (JSON or YAML), and its canonical form.

    {"instructions"?, "name"?, "inputs": [field, ...], "outputs": [field, ...]}
    field: {"name", "type"?, "description"?, "default"?, constraints...}

A type is a string of the type grammar where one says it all, else a schema. The members of an object are
written as the list `fields`, not as `properties`: a database may reorder the members of a JSON object, and
their order is part of the prompt.
"""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from dspex.kit.errors import Invalid, Problem
from dspex.signatures.constraints import CONSTRAINTS
from dspex.signatures.problems import kind_of
from dspex.signatures.reading import Path, Reading
from dspex.signatures.records import UNSET, Field, Signature
from dspex.signatures.schema_reader import SchemaReader
from dspex.signatures.string_form import (
    MAX_FIELDS,
    MAX_LENGTH,
    parse_inputs_string,
    parse_signature_string,
)
from dspex.signatures.type_strings import type_to_string
from dspex.signatures.types import (
    STR,
    DictOf,
    FieldType,
    ListOf,
    LiteralOf,
    ObjectField,
    ObjectOf,
    UnionOf,
    parts_of,
)

_KEYS = ("instructions", "name", "inputs", "outputs")
_FIELD_KEYS = ("name", "type", "description", "default")


def parse_signature(source: str | Mapping[str, Any]) -> Signature:
    """From either form. Raises Invalid (code bad_signature)."""
    return parse_signature_string(source) if isinstance(source, str) else signature_from_document(source)


def parse_inputs(source: str | list[Any]) -> tuple[Field, ...]:
    """The input fields alone, from either form. Raises Invalid (code bad_signature)."""
    if isinstance(source, str):
        return parse_inputs_string(source)
    reading = Reading()
    fields = _fields({"inputs": source}, "inputs", "input", {}, reading)
    reading.finish()
    return fields


def signature_from_document(document: Any) -> Signature:
    """From the structured form. Raises Invalid (code bad_signature) with every problem."""
    if not isinstance(document, Mapping):
        message = f"a signature is a string or an object with inputs and outputs, not {kind_of(document)}"
        raise Invalid(
            message[0].upper() + message[1:] + ".",
            code="bad_signature",
            problems=[Problem("", "wrong_type", message)],
        )
    reading = Reading()
    for key in document:
        if key not in _KEYS:
            reading.problem((key,), "unexpected", f"a signature has no {key!r}; it has {', '.join(_KEYS)}")
    names: dict[str, str] = {}
    signature = Signature(
        inputs=_fields(document, "inputs", "input", names, reading),
        outputs=_fields(document, "outputs", "output", names, reading),
        instructions=reading.text(document, "instructions", ()),
        name=reading.text(document, "name", ()),
    )
    reading.finish()
    return signature


def open_signature_from_document(document: Mapping[str, Any]) -> Signature:
    """As `signature_from_document`, of a module whose outputs may not be known: an empty list takes any."""
    if document.get("outputs"):
        return signature_from_document(document)
    known = signature_from_document({**document, "outputs": [{"name": "any"}]})
    return replace(known, outputs=())


def _fields(
    document: Mapping[str, Any], side: str, role: str, names: dict[str, str], reading: Reading
) -> tuple[Field, ...]:
    listed = document.get(side)
    if not isinstance(listed, list) or not listed:
        reading.problem(
            (side,), "missing", f"write a list with at least one {role}, as in [{{'name': 'text'}}]"
        )
        return ()
    if len(listed) > MAX_FIELDS:
        reading.problem((side,), "too_large", f"a signature may have {MAX_FIELDS} fields on each side")
        return ()
    fields: list[Field] = []
    for index, entry in enumerate(listed):
        field = _field(entry, (side, index), role, reading)
        if field is None:
            continue
        if field.name in names:
            reading.problem(
                (side, index, "name"),
                "duplicate_name",
                f"{field.name!r} is the name of {names[field.name]} already; rename one of them",
            )
        names.setdefault(field.name, f"/{side}/{index}")
        fields.append(field)
    return tuple(fields)


def _field(entry: Any, path: Path, role: str, reading: Reading) -> Field | None:
    if not isinstance(entry, Mapping):
        reading.problem(
            path, "wrong_type", f"a field is an object with a name and a type, not {kind_of(entry)}"
        )
        return None
    name = reading.name(entry.get("name"), role, (*path, "name"))
    typed = entry.get("type") is not None
    field_type: FieldType = STR
    spelled: dict[str, Any] = {}
    if typed:
        title = "".join(part[:1].upper() + part[1:] for part in (name or "Object").split("_"))
        field_type, spelled = SchemaReader(reading, entry["type"], (*path, "type")).read(title)
    given = {CONSTRAINTS[key]: (value, (*path, "type", key)) for key, value in spelled.items()}
    for key, value in entry.items():
        if key in CONSTRAINTS:
            given[CONSTRAINTS[key]] = (value, (*path, key))
        elif key not in _FIELD_KEYS:
            reading.problem(
                (*path, key), "unexpected", f"a field has no {key!r}; it has {', '.join(_FIELD_KEYS)}"
            )
    constraints = reading.check(field_type, given, path)
    default: Any = UNSET
    if "default" in entry:
        default = reading.default(field_type, dict(constraints), entry["default"], (*path, "default"))
    if name is None:
        return None
    return Field(name, field_type, reading.text(entry, "description", path), default, constraints, typed)


def signature_to_document(signature: Signature) -> dict[str, Any]:
    """The canonical document; it reads back as the same signature."""
    document: dict[str, Any] = {}
    if signature.name is not None:
        document["name"] = signature.name
    if signature.instructions is not None:
        document["instructions"] = signature.instructions
    document["inputs"] = [_field_document(field) for field in signature.inputs]
    document["outputs"] = [_field_document(field) for field in signature.outputs]
    return document


def _field_document(field: Field) -> dict[str, Any]:
    document: dict[str, Any] = {"name": field.name}
    if field.typed:
        document["type"] = type_to_document(field.type)
    if field.description is not None:
        document["description"] = field.description
    if field.has_default:
        document["default"] = field.default
    return {**document, **dict(field.constraints)}


def type_from_document(document: Any) -> FieldType:
    """From what `type_to_document` made. Raises Invalid (code bad_signature) with all problems."""
    reading = Reading()
    field_type, constraints = SchemaReader(reading, document, ()).read("Object")
    if constraints:
        reading.problem((), "unsupported", f"{next(iter(constraints))} belongs beside the type")
    reading.finish()
    return field_type


def type_to_document(field_type: FieldType) -> Any:
    """Canonical JSON for the type: a string, or a dict when there is an object inside."""
    text = type_to_string(field_type)
    if len(text) <= MAX_LENGTH and not any(isinstance(part, ObjectOf) for part in parts_of(field_type)):
        return text
    match field_type:
        case ListOf(item):
            return {"type": "array", "items": type_to_document(item)}
        case DictOf(value):
            return {"type": "object", "additionalProperties": type_to_document(value)}
        case UnionOf(options):
            return {"anyOf": [type_to_document(option) for option in options]}
        case LiteralOf(values):
            return {"enum": list(values)}
        case ObjectOf():
            return _object_document(field_type)
        case _:
            return text


def _object_document(shape: ObjectOf) -> dict[str, Any]:
    document: dict[str, Any] = {"type": "object", "title": shape.name}
    if shape.description is not None:
        document["description"] = shape.description
    document["fields"] = [_member_document(member) for member in shape.fields]
    return document


def _member_document(member: ObjectField) -> dict[str, Any]:
    document: dict[str, Any] = {"name": member.name, "type": type_to_document(member.type)}
    if member.description is not None:
        document["description"] = member.description
    if not member.required:
        document["required"] = False
        if member.default is not None:
            document["default"] = member.default
    return {**document, **dict(member.constraints)}
