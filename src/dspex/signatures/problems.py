"""From pydantic-core's errors to ours: stable codes, JSON pointers, and what was wanted."""

from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails, ValidationError

from dspex.kit.errors import Problem

# pydantic-core's error type -> our code, what the value must be
_KNOWN: dict[str, tuple[str, str]] = {
    "missing": ("missing", "is required"),
    "extra_forbidden": ("unexpected", "is not a field of this signature"),
    "invalid_key": ("unexpected", "is not a field of this signature"),
    "string_type": ("wrong_type", "must be a string, not {given}"),
    "string_unicode": ("wrong_type", "must be a string without lone surrogates"),
    "int_type": ("wrong_type", "must be an integer, not {given}"),
    "float_type": ("wrong_type", "must be a number, not {given}"),
    "bool_type": ("wrong_type", "must be true or false, not {given}"),
    "none_required": ("wrong_type", "must be null, not {given}"),
    "list_type": ("wrong_type", "must be a list, not {given}"),
    "dict_type": ("wrong_type", "must be an object, not {given}"),
    "greater_than": ("out_of_range", "must be greater than {gt}"),
    "greater_than_equal": ("out_of_range", "must be at least {ge}"),
    "less_than": ("out_of_range", "must be less than {lt}"),
    "less_than_equal": ("out_of_range", "must be at most {le}"),
    "multiple_of": ("out_of_range", "must be a multiple of {multiple_of}"),
    "finite_number": ("out_of_range", "must be a finite number"),
    "string_too_short": ("wrong_length", "must have at least {min_length} characters"),
    "string_too_long": ("wrong_length", "must have at most {max_length} characters"),
    "too_short": ("wrong_length", "must have at least {min_length} items, not {actual_length}"),
    "too_long": ("wrong_length", "must have at most {max_length} items"),
    "string_pattern_mismatch": ("not_matching", "must match the pattern {pattern}"),
}
_OURS = frozenset({"wrong_type", "out_of_range", "not_allowed", "too_deep"})


def problems_of(error: ValidationError, root: str) -> tuple[Problem, ...]:
    """Every bad spot, in the order of the fields, with pointers below `root`."""
    details = error.errors(include_url=False)
    return tuple(Problem(pointer_to(root, one["loc"]), *_described(one)) for one in details)


def _described(detail: ErrorDetails) -> tuple[str, str]:
    if detail["type"] in _OURS:
        return detail["type"], detail["msg"]
    if detail["loc"] and detail["loc"][-1] == "[key]":
        return "wrong_type", f"the keys of an object must be strings, not {kind_of(detail['input'])}"
    if detail["type"] in _KNOWN:
        code, message = _KNOWN[detail["type"]]
        return code, message.format_map({**detail.get("ctx", {}), "given": kind_of(detail["input"])})
    return "invalid", detail["msg"]


def pointer_to(root: str, parts: Iterable[str | int]) -> str:
    """A JSON pointer (RFC 6901); the mark pydantic-core puts behind a bad key is left out."""
    return root + "".join(
        "/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts if part != "[key]"
    )


def kind_of(value: Any) -> str:
    """What a value is called in JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a Python {type(value).__name__}"
