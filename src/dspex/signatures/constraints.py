"""Constraints on a field: which exist, which type takes which, and how DSPy is told."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dspex.signatures.types import (
    FLOAT,
    INT,
    NONE,
    STR,
    Constraint,
    DictOf,
    Embedding,
    FieldType,
    ListOf,
    Probability,
    ReasoningChain,
    UnionOf,
)

_BOUNDS: Final = ("gt", "ge", "lt", "le", "multiple_of")
_LENGTHS: Final = ("min_length", "max_length")
NAMES: Final = (*_BOUNDS, *_LENGTHS, "pattern")
# Every accepted spelling and the name it stands for.
CONSTRAINTS: Final = {
    **{name: name for name in NAMES},
    "exclusiveMinimum": "gt",
    "minimum": "ge",
    "exclusiveMaximum": "lt",
    "maximum": "le",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "minProperties": "min_length",
    "maxProperties": "max_length",
    "pattern": "pattern",
}


def in_order(constraints: Mapping[str, Constraint]) -> tuple[tuple[str, Constraint], ...]:
    """As records hold them: in one fixed order, because DSPy writes them into the prompt in order."""
    return tuple((name, constraints[name]) for name in NAMES if name in constraints)


def options_taking(field_type: FieldType) -> tuple[FieldType, ...]:
    """The types a constraint on the field is about: all options of a union but None."""
    if isinstance(field_type, UnionOf):
        return tuple(option for option in field_type.options if option != NONE)
    return (field_type,)


def constraint_problems(field_type: FieldType, constraints: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Pairs of a constraint's name and what is wrong with it for this type."""
    for name, value in constraints.items():
        problem = _value_problem(name, value, field_type)
        if problem is not None:
            yield name, problem


def _value_problem(name: str, value: Any, field_type: FieldType) -> str | None:
    targets = options_taking(field_type)
    if not targets or not all(name in _taken_by(target) for target in targets):
        return f"{name} does not apply to this type"
    if name == "pattern":
        return None if isinstance(value, str) else "pattern must be a string, a regular expression"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name} must be a number"
    if name in _LENGTHS:
        return (
            None if isinstance(value, int) and 0 <= value < 2**31 else f"{name} must be a whole number from 0"
        )
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} must be a finite number"
    if name == "multiple_of" and value <= 0:
        return "multiple_of must be greater than 0"
    if INT in targets and not isinstance(value, int):
        return f"{name} must be a whole number, as the field is an int"
    if abs(value) > 2**53 and (FLOAT in targets or any(isinstance(one, Probability) for one in targets)):
        return f"{name} must lie between -2**53 and 2**53 for a float"
    return None


def _taken_by(field_type: FieldType) -> tuple[str, ...]:
    if field_type in (INT, FLOAT) or isinstance(field_type, Probability):
        return _BOUNDS
    if field_type == STR:
        return (*_LENGTHS, "pattern")
    if isinstance(field_type, ListOf | DictOf | ReasoningChain):
        return _LENGTHS
    if isinstance(field_type, Embedding) and field_type.dimensions is None:
        return _LENGTHS
    return ()
