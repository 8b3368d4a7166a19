"""A deterministic value for any type: what mocks answer with and what examples in documents show."""

import hashlib
from typing import Any

from dspex.signatures.records import UNSET, Field
from dspex.signatures.types import (
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
)


def sample_field(field: Field, seed: str) -> Any:
    """A JSON value that fits the field: its default when it has one. The same seed gives the same value.

    Constraints that the type does not carry (pattern, multiple_of) are not considered.
    """
    if field.default is not UNSET:
        return field.default
    limits = dict(field.constraints)
    value = sample(field.type, f"{seed}/{field.name}", field.name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
        if isinstance(low, int | float) and value <= low:
            value = type(value)(low + (1 if "gt" in limits else 0))
        if isinstance(high, int | float) and value >= high:
            value = type(value)(high - (1 if "lt" in limits else 0))
    return value


def sample(field_type: FieldType, seed: str, name: str = "value") -> Any:
    number = int.from_bytes(hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()[:4], "big")
    match field_type:
        case Scalar("int"):
            return number % 100
        case Scalar("float"):
            return round(number % 10_000 / 100, 2)
        case Scalar("bool"):
            return number % 2 == 0
        case Scalar("date"):
            return f"2024-{number % 12 + 1:02d}-{number % 28 + 1:02d}"
        case Scalar("datetime"):
            return f"2024-{number % 12 + 1:02d}-{number % 28 + 1:02d}T{number % 24:02d}:00:00Z"
        case Scalar("none"):
            return None
        case Scalar():
            return f"{name} {number % 1000}"
        case ListOf(item):
            return [sample(item, f"{seed}/{index}", name) for index in range(number % 2 + 1)]
        case DictOf(value):
            return {"key": sample(value, f"{seed}/key", name)}
        case UnionOf(options):
            return sample(options[0], seed, name)
        case LiteralOf(values):
            return values[number % len(values)]
        case ObjectOf(fields=members):
            return {
                member.name: sample(member.type, f"{seed}/{member.name}", member.name) for member in members
            }
        case Embedding(dimensions):
            return [round((number >> shift & 255) / 255, 4) for shift in range(dimensions or 3)]
        case Probability():
            return round(number % 101 / 100, 2)
        case ReasoningChain():
            return [f"step {index + 1} of {name}" for index in range(2)]
