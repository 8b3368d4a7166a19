"""Whether a value of one type can be of another: what is certainly a mistake in the wiring, and nothing else."""

from dspex.signatures.types import (
    ANY,
    FLOAT,
    NONE,
    STR,
    DictOf,
    Embedding,
    FieldType,
    ListOf,
    LiteralOf,
    ObjectOf,
    Probability,
    ReasoningChain,
    Scalar,
    ScalarName,
    UnionOf,
)


def may_fit(source: FieldType, target: FieldType) -> bool:
    """False when no value of `source` but None and empty ones is one of `target`. An int may stand for a float."""
    one, other = _plain(source), _plain(target)
    if ANY in (one, other):
        return True
    if isinstance(one, UnionOf):
        return any(may_fit(option, other) for option in one.options if option != NONE)
    if isinstance(other, UnionOf):
        return any(may_fit(one, option) for option in other.options)
    match one, other:
        case ListOf(item), ListOf(wanted):
            return may_fit(item, wanted)
        case DictOf(value), DictOf(wanted):
            return may_fit(value, wanted)
        case (ObjectOf(), DictOf()) | (DictOf(), ObjectOf()):
            return True
        case ObjectOf(), ObjectOf():
            return _objects_fit(one, other)
        case LiteralOf(values), LiteralOf(wanted):
            return any(
                value == allowed and type(value) is type(allowed) for value in values for allowed in wanted
            )
        case LiteralOf(values), _:
            return any(may_fit(Scalar(_NAMES[type(value)]), other) for value in values)
        case _, LiteralOf(wanted):
            return any(may_fit(one, Scalar(_NAMES[type(value)])) for value in wanted)
    return one == other or (one == Scalar("int") and other == FLOAT)


_NAMES: dict[type, ScalarName] = {str: "str", int: "int", bool: "bool"}


def _plain(field_type: FieldType) -> FieldType:
    """The domain types as what they are made of."""
    match field_type:
        case Embedding():
            return ListOf(FLOAT)
        case Probability():
            return FLOAT
        case ReasoningChain():
            return ListOf(STR)
        case _:
            return field_type


def _objects_fit(source: ObjectOf, target: ObjectOf) -> bool:
    given = {field.name: field for field in source.fields}
    for wanted in target.fields:
        if wanted.name not in given:
            if wanted.required:
                return False
        elif not may_fit(given[wanted.name].value_type, wanted.value_type):
            return False
    return True
