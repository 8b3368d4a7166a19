"""Our own type grammar: what a field of a signature can hold.

Not JSON Schema, because JSON Schema loses what a Python annotation says. `annotations.py` maps each
type to exactly one Python annotation, the one DSPy is given; that mapping is what equality with DSPy means.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from msgspec import Struct

ScalarName = Literal["str", "int", "float", "bool", "any", "date", "datetime", "none"]
Constraint = int | float | str


class Scalar(Struct, frozen=True):
    """A type without parts."""

    name: ScalarName


class ListOf(Struct, frozen=True):
    """Any number of one type."""

    item: "FieldType"


class DictOf(Struct, frozen=True):
    """Keys are strings."""

    value: "FieldType"


class UnionOf(Struct, frozen=True):
    """Two or more options, order kept; `Optional[T]` is `UnionOf((T, Scalar("none")))`."""

    options: tuple["FieldType", ...]


class LiteralOf(Struct, frozen=True):
    """One of the values, told apart by type as well: 1 is not True."""

    values: tuple[str | int | bool, ...]


class ObjectField(Struct, frozen=True):
    """A member of an object."""

    name: str
    type: "FieldType"
    required: bool = True
    default: Any = None
    description: str | None = None
    constraints: tuple[tuple[str, Constraint], ...] = ()

    @property
    def value_type(self) -> "FieldType":
        """What the member can hold: None as well when it may be absent and nothing stands in for it."""
        if self.required or self.default is not None:
            return self.type
        return union_of([self.type, NONE])


class ObjectOf(Struct, frozen=True):
    """A nested object; becomes a pydantic model called `name`. Unknown members are ignored, as DSPy does."""

    name: str
    fields: tuple[ObjectField, ...]
    description: str | None = None


class Embedding(Struct, frozen=True):
    """A list of floats, of exactly `dimensions` numbers when given."""

    dimensions: int | None = None


class Probability(Struct, frozen=True):
    """A float from 0 to 1. `spelling` keeps the word the author used."""

    spelling: Literal["probability", "confidence_score"] = "probability"


class ReasoningChain(Struct, frozen=True):
    """A list of reasoning steps, each a string."""


FieldType = (
    Scalar | ListOf | DictOf | UnionOf | LiteralOf | ObjectOf | Embedding | Probability | ReasoningChain
)

STR, INT, FLOAT, BOOL = Scalar("str"), Scalar("int"), Scalar("float"), Scalar("bool")
ANY, DATE, DATETIME, NONE = Scalar("any"), Scalar("date"), Scalar("datetime"), Scalar("none")


def allows_none(field_type: FieldType) -> bool:
    """Whether an absent value is an admissible value: None itself or a union with None in it.

    `any` does not count, as in `dspy.adapters.utils.annotation_allows_none`.
    """
    if isinstance(field_type, UnionOf):
        return any(allows_none(option) for option in field_type.options)
    return field_type == NONE


def union_of(options: Iterable[FieldType]) -> FieldType:
    """The union Python's `typing.Union` would make: nested unions flattened, repeats dropped, order kept.

    A single remaining option is returned as itself.
    """
    flat: dict[str, FieldType] = {}
    for option in options:
        for part in option.options if isinstance(option, UnionOf) else (option,):
            # repr, because `LiteralOf((1,)) == LiteralOf((True,))` in Python
            flat.setdefault(repr(part), part)
    kept = tuple(flat.values())
    return kept[0] if len(kept) == 1 else UnionOf(kept)


def parts_of(field_type: FieldType) -> Iterator[FieldType]:
    """The type itself and every type inside it, outermost first."""
    yield field_type
    match field_type:
        case ListOf(inner) | DictOf(inner):
            yield from parts_of(inner)
        case UnionOf(options):
            for option in options:
                yield from parts_of(option)
        case ObjectOf(fields=members):
            for member in members:
                yield from parts_of(member.type)
        case _:
            pass
