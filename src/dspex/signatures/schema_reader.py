"""Types out of a JSON Schema subset. A keyword that our types can't carry exactly is refused by name."""

from collections.abc import Mapping
from typing import Any

from dspex.signatures.constraints import CONSTRAINTS
from dspex.signatures.names import name_problem
from dspex.signatures.problems import kind_of
from dspex.signatures.reading import Path, Reading
from dspex.signatures.string_form import SignatureSyntaxError, parse_type_string
from dspex.signatures.types import (
    ANY,
    BOOL,
    DATE,
    DATETIME,
    FLOAT,
    INT,
    NONE,
    STR,
    DictOf,
    FieldType,
    ListOf,
    LiteralOf,
    ObjectField,
    ObjectOf,
    union_of,
)

_PLAIN = {"string": STR, "integer": INT, "number": FLOAT, "boolean": BOOL, "null": NONE}
_FORMATS = {"date": DATE, "date-time": DATETIME}


class SchemaReader:
    """One field's type: a string of the grammar or a schema with its own `$defs`."""

    def __init__(self, reading: Reading, root: Any, path: Path) -> None:
        self._reading, self._root, self._path = reading, root, path
        self._open: list[str] = []

    def read(self, title: str) -> tuple[FieldType, dict[str, Any]]:
        """The type and the constraints its root spells; `title` names an untitled object."""
        return self._read(self._root, self._path, title, 0)

    def _read(self, schema: Any, path: Path, title: str, depth: int) -> tuple[FieldType, dict[str, Any]]:
        reading = self._reading
        if not reading.count(path, depth):
            return ANY, {}
        if isinstance(schema, str):
            return self._from_string(schema, path), {}
        if schema is True:
            return ANY, {}
        if not isinstance(schema, Mapping) or not all(isinstance(key, str) for key in schema):
            reading.problem(
                path, "wrong_type", f"a type is a string or a JSON Schema object, not {kind_of(schema)}"
            )
            return ANY, {}
        left = {key: value for key, value in schema.items() if key not in ("$defs", "definitions", "$schema")}
        field_type, used = self._from_schema(left, path, title, depth)
        constraints: dict[str, Any] = {}
        for key, value in left.items():
            if key in used:
                continue
            if key in CONSTRAINTS:
                constraints[key] = value
            else:
                reading.problem((*path, key), "unsupported", f"{key!r} can't be carried over here; remove it")
        return field_type, constraints

    def _plain(self, schema: Any, path: Path, title: str, depth: int) -> FieldType:
        """A type in a place that has no room for constraints."""
        field_type, constraints = self._read(schema, path, title, depth)
        for key in constraints:
            self._reading.problem(
                (*path, key),
                "unsupported",
                f"{key!r} can only stand on a field or a member, not here; remove it",
            )
        return field_type

    def _from_string(self, text: str, path: Path) -> FieldType:
        if text in _PLAIN:
            return _PLAIN[text]
        try:
            return parse_type_string(text)
        except SignatureSyntaxError as error:
            self._reading.problem(path, "bad_type", error.problems[0].message)
            return ANY

    def _from_schema(
        self, schema: dict[str, Any], path: Path, title: str, depth: int
    ) -> tuple[FieldType, set[str]]:
        """The type and the keywords that made it."""
        if "$ref" in schema:
            return self._referenced(schema["$ref"], path, depth), {"$ref"}
        if "anyOf" in schema:
            return self._any_of(schema["anyOf"], path, title, depth), {"anyOf"}
        if "enum" in schema or "const" in schema:
            key = "enum" if "enum" in schema else "const"
            values = schema[key] if key == "enum" else [schema[key]]
            return self._literal(values, schema.get("type"), (*path, key)), {key, "type"}
        kind = schema.get("type")
        match kind:
            case None:
                return ANY, {"type"}
            case list():
                return self._kinds(schema, kind, path, title, depth)
            case "string" if "format" in schema:
                return self._format(schema["format"], (*path, "format")), {"type", "format"}
            case "array":
                items = schema.get("items", True)
                item = self._plain(items, (*path, "items"), title + "Item", depth + 1)
                return ListOf(item), {"type", "items"}
            case "object" if "properties" in schema or "fields" in schema:
                return self._object(schema, path, title, depth)
            case "object":
                inner = schema.get("additionalProperties", True)
                value = self._plain(inner, (*path, "additionalProperties"), title + "Value", depth + 1)
                return DictOf(value), {"type", "additionalProperties"}
            case str():
                return self._from_string(kind, (*path, "type")), {"type"}
        self._reading.problem((*path, "type"), "wrong_type", f"type must be a string, not {kind_of(kind)}")
        return ANY, {"type"}

    def _kinds(
        self, schema: dict[str, Any], kinds: list[Any], path: Path, title: str, depth: int
    ) -> tuple[FieldType, set[str]]:
        """`{"type": ["string", "null"]}`: other keywords are about the one kind that is not null."""
        if not kinds or not all(isinstance(kind, str) for kind in kinds):
            self._reading.problem((*path, "type"), "bad_type", "type needs a name or a list of names")
            return ANY, {"type"}
        others = [kind for kind in kinds if kind != "null"]
        if len(others) == 1:
            inner, used = self._from_schema({**schema, "type": others[0]}, path, title, depth)
            options = [NONE if kind == "null" else inner for kind in kinds]
            return union_of(options), used
        options = [self._plain({"type": kind}, (*path, "type"), title, depth + 1) for kind in kinds]
        return union_of(options), {"type"}

    def _format(self, name: Any, path: Path) -> FieldType:
        if isinstance(name, str) and name in _FORMATS:
            return _FORMATS[name]
        self._reading.problem(
            path, "unsupported", f"format {name!r} can't be carried over; 'date' and 'date-time' can"
        )
        return STR

    def _any_of(self, options: Any, path: Path, title: str, depth: int) -> FieldType:
        if not isinstance(options, list) or not options:
            self._reading.problem((*path, "anyOf"), "bad_type", "anyOf needs a list of types")
            return ANY
        return union_of(
            [
                self._plain(option, (*path, "anyOf", index), title + str(index or ""), depth + 1)
                for index, option in enumerate(options)
            ]
        )

    def _literal(self, values: Any, kind: Any, path: Path) -> FieldType:
        if not isinstance(values, list) or not values:
            self._reading.problem(path, "bad_type", "enum needs a list of values")
            return ANY
        kept: dict[tuple[type, Any], str | int | bool] = {}
        for index, value in enumerate(values):
            if isinstance(value, str | int):
                kept.setdefault((type(value), value), value)
            elif value is not None:
                self._reading.problem(
                    (*path, index), "unsupported", "only text, whole numbers, true, false and null"
                )
        allowed = kind if isinstance(kind, list) else [kind]
        python = {"string": str, "integer": int, "boolean": bool, "null": type(None)}
        if kind is not None and any(
            type(value) not in [python.get(one) for one in allowed if isinstance(one, str)]
            for value in values
        ):
            self._reading.problem(path, "bad_type", f"the values do not fit the type {kind!r}")
        literal = [LiteralOf(tuple(kept.values()))] if kept else []
        return union_of([*literal, *([NONE] if None in values else [])] or [ANY])

    def _referenced(self, reference: Any, path: Path, depth: int) -> FieldType:
        parts = reference.split("/") if isinstance(reference, str) else []
        if len(parts) == 3 and parts[0] == "#" and parts[1] in ("$defs", "definitions"):
            name = parts[2].replace("~1", "/").replace("~0", "~")
            definitions = self._root.get(parts[1])
            if isinstance(definitions, Mapping) and name in definitions:
                if name in self._open:
                    self._reading.problem((*path, "$ref"), "bad_reference", "a type can't hold itself")
                    return ANY
                self._open.append(name)
                # Pointers name the definition, where the text is.
                inner = self._plain(definitions[name], (*self._path, parts[1], name), name, depth + 1)
                self._open.pop()
                return inner
        self._reading.problem(
            (*path, "$ref"),
            "bad_reference",
            f"{reference!r} is not found; write '#/$defs/Name' and add it to $defs",
        )
        return ANY

    def _object(
        self, schema: dict[str, Any], path: Path, title: str, depth: int
    ) -> tuple[FieldType, set[str]]:
        reading = self._reading
        used = {"type", "title", "description", "properties", "required", "fields"}
        if schema.get("additionalProperties") is True:
            used.add("additionalProperties")
        name = reading.text(schema, "title", path) or title
        reading.name(name, "member", (*path, "title"))
        entries = self._fields(schema, path) if "fields" in schema else self._properties(schema, path)
        members = [
            self._member(key, entry, required, where, name, depth) for key, entry, required, where in entries
        ]
        known = {member.name for member in members}
        if len(known) != len(members):
            reading.problem(path, "duplicate_name", "two members have the same name; rename one")
            return ANY, used
        shape = ObjectOf(name, tuple(members), reading.text(schema, "description", path))
        return (reading.shape(shape, path) if _usable(shape) else ANY), used

    def _properties(self, schema: dict[str, Any], path: Path) -> list[tuple[str, Any, bool, Path]]:
        properties, required = schema["properties"], schema.get("required", [])
        if not isinstance(properties, Mapping):
            self._reading.problem((*path, "properties"), "wrong_type", "properties must be an object")
            return []
        if not isinstance(required, list):
            self._reading.problem((*path, "required"), "wrong_type", "required must be a list of names")
            required = []
        for index, name in enumerate(required):
            if name not in list(properties):
                self._reading.problem(
                    (*path, "required", index), "unknown_name", f"{name!r} is not a property"
                )
        return [
            (name, entry, name in required, (*path, "properties", name)) for name, entry in properties.items()
        ]

    def _fields(self, schema: dict[str, Any], path: Path) -> list[tuple[str, Any, bool, Path]]:
        fields = schema["fields"]
        for key in ("properties", "required"):
            if key in schema:
                self._reading.problem((*path, key), "unsupported", f"write either fields or {key}, not both")
        if not isinstance(fields, list):
            self._reading.problem((*path, "fields"), "wrong_type", "fields must be a list")
            return []
        entries: list[tuple[str, Any, bool, Path]] = []
        for index, entry in enumerate(fields):
            where = (*path, "fields", index)
            if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
                self._reading.problem(
                    where, "wrong_type", "each of fields is an object with a name and a type"
                )
                continue
            rest = {key: value for key, value in entry.items() if key not in ("name", "required")}
            # `type` may itself be a schema here
            if isinstance(rest.get("type"), Mapping):
                rest = {"$type": rest.pop("type"), **rest}
            required = entry.get("required", "default" not in entry)
            if not isinstance(required, bool):
                self._reading.problem((*where, "required"), "wrong_type", "required must be true or false")
            entries.append((entry["name"], rest, required is not False, where))
        return entries

    def _member(
        self, name: Any, entry: Any, required: bool, path: Path, owner: str, depth: int
    ) -> ObjectField:
        reading = self._reading
        reading.name(name, "member", path)
        entry = dict(entry) if isinstance(entry, Mapping) else {"type": entry}
        is_object = entry.get("type") == "object" and ("properties" in entry or "fields" in entry)
        description = None if is_object else reading.text(entry, "description", path)
        taken = {"default"} if is_object else {"default", "description"}
        if not is_object and entry.get("title") == str(name).replace("_", " ").title():
            taken.add("title")  # the title pydantic writes by itself
        schema = entry.get("$type", {key: value for key, value in entry.items() if key not in taken})
        where = (*path, "type") if "$type" in entry else path
        field_type, spelled = self._read(schema, where, owner + _camel(str(name)), depth + 1)
        if "$type" in entry:
            _, beside = self._read(
                {key: entry[key] for key in entry if key not in {"$type", *taken}}, path, "", depth
            )
            spelled = {**spelled, **beside}
        given = {CONSTRAINTS[key]: (value, (*path, key)) for key, value in spelled.items()}
        constraints = reading.check(field_type, given, path)
        default: Any = None
        if "default" in entry:
            if required:
                reading.problem(
                    (*path, "default"),
                    "unsupported",
                    "a member with a default is not required; say so, or remove the default",
                )
            if entry["default"] is not None:
                default = reading.default(field_type, dict(constraints), entry["default"], (*path, "default"))
        return ObjectField(str(name), field_type, required, default, description, constraints)


def _usable(shape: ObjectOf) -> bool:
    """Whether a model can be made of it; otherwise the bad names are problems already."""
    names = [shape.name, *(member.name for member in shape.fields)]
    return all(name_problem(name, "member") is None for name in names)


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))
