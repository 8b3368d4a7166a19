"""What a condition says of some values. Total: whatever the values are, it is true or false.

Values count as JSON has them: dates are text, objects have members. Null is what is absent: a field of a step that was
skipped, a member that is not there. Different kinds are never equal, and neither is less than the other.
"""

from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Any, Final

from dspex.programs.conditions.records import (
    Compared,
    Comparison,
    Constant,
    Junction,
    Length,
    Node,
    Not,
    Path,
)
from dspex.signatures.values import to_json

# What the first names of a path stand for: the value, and how many names led to it.
Look = Callable[[tuple[str, ...]], tuple[Any, int]]
_ORDERS: Final[Mapping[Comparison, Callable[[Any, Any], bool]]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


def holds(condition: Node, look: Look) -> bool:
    """Whether it is true; what is neither true nor false does not hold."""
    seen: dict[tuple[str, ...], Any] = {}

    def once(names: tuple[str, ...]) -> Any:
        # As JSON, which for a large value takes longer than all the rest.
        if names not in seen:
            value, taken = look(names)
            whole = names[:taken]
            if whole not in seen:
                seen[whole] = to_json(value)
            seen[names] = _member(seen[whole], names[taken:])
        return seen[names]

    return _value(condition, once) is True


def _value(node: Node, look: Callable[[tuple[str, ...]], Any]) -> Any:
    match node:
        case Constant(value):
            return to_json(value)
        case Path(names):
            return look(names)
        case Length(of):
            inner = _value(of, look)
            return len(inner) if isinstance(inner, str | list | dict) else None
        case Not(of):
            return _value(of, look) is not True
        case Junction("and", parts):
            return all(_value(part, look) is True for part in parts)
        case Junction(parts=parts):
            return any(_value(part, look) is True for part in parts)
        case Compared(left, operator, right):
            return _compare(_value(left, look), operator, _value(right, look))


def _member(value: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _compare(left: Any, operator: Comparison, right: Any) -> bool:
    match operator:
        case "==":
            return same(left, right)
        case "!=":
            return not same(left, right)
        case "in":
            return _contains(right, left)
        case "not in":
            return not _contains(right, left)
        case _:
            return kind_of_value(left) == kind_of_value(right) in ("text", "number") and _ORDERS[operator](
                left, right
            )


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values: 1 is 1.0 but not true. Takes one step for each part, however deep they are."""
    pairs = [(left, right)]
    while pairs:
        one, other = pairs.pop()
        if kind_of_value(one) != kind_of_value(other):
            return False
        if isinstance(one, list):
            if len(one) != len(other):
                return False
            pairs += zip(one, other, strict=True)
        elif isinstance(one, dict):
            if one.keys() != other.keys():
                return False
            pairs += [(one[key], other[key]) for key in one]
        elif one != other:
            return False
    return True


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(whole, list) and isinstance(part, list | dict):
        return any(same(one, part) for one in whole)
    if isinstance(whole, list):
        kind = kind_of_value(part)
        return any(one == part and kind_of_value(one) == kind for one in whole)
    return isinstance(whole, str | dict) and isinstance(part, str) and part in whole


def kind_of_value(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case list():
            return "list"
        case dict():
            return "object"
        case _:
            return "null"
