"""What is wrong with a condition for certain, by the types of the fields that it names."""

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from dspex.kit import json
from dspex.programs.conditions.evaluation import kind_of_value, same
from dspex.programs.conditions.records import Compared, Constant, Junction, Length, Node, Not, Path
from dspex.signatures.types import (
    ANY,
    NONE,
    DictOf,
    Embedding,
    FieldType,
    ListOf,
    LiteralOf,
    ObjectOf,
    Probability,
    ReasoningChain,
    Scalar,
    UnionOf,
    union_of,
)
from dspex.signatures.values import to_json

_KINDS = {
    "str": "text",
    "int": "number",
    "float": "number",
    "bool": "boolean",
    "date": "text",
    "datetime": "text",
    "none": "null",
}
_EVERY = frozenset({"text", "number", "boolean", "list", "object", "null"})
_ORDERED = frozenset({"text", "number"})
_SIZED = frozenset({"text", "list", "object"})
_BOOLEAN = frozenset({"boolean"})


class Mistake(Struct, frozen=True):
    """`at` is the 0-based character of the condition that it is about."""

    message: str
    at: int


class UnknownPath(Exception):
    """A path leads nowhere; the message says what there is instead."""


class _Shape(Struct, frozen=True):
    """Which kinds of values a part can have. `values` are all it can be, where that is known."""

    text: str
    kinds: frozenset[str]
    values: tuple[Any, ...] | None = None


TypeOf = Callable[[tuple[str, ...]], FieldType]


def mistakes_in(condition: Node, type_of: TypeOf) -> list[Mistake]:
    """Every mistake, in the order of the text. `type_of` raises UnknownPath."""
    found: list[Mistake] = []
    shape = _shape(condition, type_of, found)
    found += _not_boolean(shape, condition.at)
    return sorted(found, key=lambda one: one.at)


def member_type(of: FieldType, name: str) -> FieldType:
    """The type of a member of a value. Raises UnknownPath where there can't be one."""
    match of:
        case Scalar("any"):
            return ANY
        case DictOf(value):
            return union_of([value, NONE])
        case ObjectOf(title, fields):
            for field in fields:
                if field.name == name:
                    return field.value_type
            known = ", ".join(field.name for field in fields)
            raise UnknownPath(f"{title} has no {name!r}; it has {known}")
        case UnionOf(options):
            found: list[FieldType] = []
            complaint = UnknownPath(f"there is no {name!r} in it")
            for option in options:
                try:
                    found.append(NONE if option == NONE else member_type(option, name))
                except UnknownPath as error:
                    complaint = error
            if all(one == NONE for one in found):
                raise complaint
            return union_of(found)
        case _:
            raise UnknownPath(f"it has no members, so no {name!r}")


def _shape(node: Node, type_of: TypeOf, found: list[Mistake]) -> _Shape:
    match node:
        case Constant(value):
            plain = to_json(value)
            return _Shape(json.dumps(plain).decode(), frozenset({kind_of_value(plain)}), (plain,))
        case Path(names, at):
            text = ".".join(names)
            try:
                return _of_type(text, type_of(names))
            except UnknownPath as error:
                found.append(Mistake(f"{text}: {error}", at))
                return _Shape(text, _EVERY)
        case Length(of, at):
            inner = _shape(of, type_of, found)
            if not inner.kinds & _SIZED:
                found.append(Mistake(f"{inner.text} is {_said(inner.kinds)}, which has no length", at))
            return _Shape(f"len({inner.text})", frozenset({"number"}))
        case Not(of):
            found += _not_boolean(_shape(of, type_of, found), of.at)
        case Junction(parts=parts):
            for part in parts:
                found += _not_boolean(_shape(part, type_of, found), part.at)
        case Compared(left, operator, right, at):
            one, other = _shape(left, type_of, found), _shape(right, type_of, found)
            found += [Mistake(message, at) for message in _never(one, operator, other)]
    return _Shape("this", _BOOLEAN)


def _of_type(text: str, field_type: FieldType) -> _Shape:
    options = field_type.options if isinstance(field_type, UnionOf) else (field_type,)
    kinds: set[str] = set()
    values: list[Any] | None = []
    for option in options:
        kinds |= _kinds(option)
        if isinstance(option, LiteralOf) and values is not None:
            values += option.values
        elif option == NONE and values is not None:
            values.append(None)
        else:
            values = None
    return _Shape(text, frozenset(kinds), None if values is None else tuple(values))


def _kinds(field_type: FieldType) -> frozenset[str]:
    match field_type:
        case Scalar("any"):
            return _EVERY
        case Scalar(name):
            return frozenset({_KINDS[name]})
        case LiteralOf(values):
            return frozenset(kind_of_value(value) for value in values)
        case UnionOf(options):
            return frozenset().union(*map(_kinds, options))
        case Probability():
            return frozenset({"number"})
        case ListOf() | Embedding() | ReasoningChain():
            return frozenset({"list"})
        case DictOf() | ObjectOf():
            return frozenset({"object"})


def _never(left: _Shape, operator: str, right: _Shape) -> Iterator[str]:
    """Why two parts can never compare, as far as that is certain."""
    if operator in ("==", "!="):
        if not _may_be_same(left, right):
            yield f"{_told(left)} and {_told(right)} are never equal"
    elif operator in ("in", "not in"):
        yield from _never_in(left, right)
    elif not left.kinds & right.kinds & _ORDERED:
        yield (
            f"{operator} compares two numbers or two texts; {left.text} is {_said(left.kinds)}, "
            f"{right.text} is {_said(right.kinds)}"
        )


def _never_in(part: _Shape, whole: _Shape) -> Iterator[str]:
    if not whole.kinds & _SIZED:
        yield f"{_told(whole)}; `in` looks into a list, a text or an object"
    elif "list" not in whole.kinds:
        if "text" not in part.kinds:
            yield f"{_told(part)}, and only text is in a text or an object"
    elif whole.values is not None and part.values is not None:
        for value in [one for values in whole.values if isinstance(values, list) for one in values]:
            if not any(same(value, one) for one in part.values):
                yield f"{_told(part)} and is never {json.dumps(value).decode()}"
    elif whole.values is not None:
        inside = {kind_of_value(one) for values in whole.values if isinstance(values, list) for one in values}
        if not inside & part.kinds:
            yield f"{_told(part)}, and nothing like it is in {whole.text}"


def _may_be_same(left: _Shape, right: _Shape) -> bool:
    if left.values is not None and right.values is not None:
        return any(same(one, other) for one in left.values for other in right.values)
    return bool(left.kinds & right.kinds)


def _not_boolean(shape: _Shape, at: int) -> Iterator[Mistake]:
    if "boolean" not in shape.kinds:
        yield Mistake(f"{_told(shape)}, neither true nor false; compare it with something", at)


def _told(shape: _Shape) -> str:
    if shape.values is not None and len(shape.values) == 1:
        return shape.text
    if shape.values is not None:
        return f"{shape.text} is one of {', '.join(json.dumps(one).decode() for one in shape.values)}"
    return f"{shape.text} is {_said(shape.kinds)}"


def _said(kinds: frozenset[str]) -> str:
    names = {"text": "text", "null": "null"}
    return " or ".join(
        names.get(one, f"a {one}" if one != "object" else "an object") for one in sorted(kinds)
    )
