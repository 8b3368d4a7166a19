"""A condition as a tree. `at` is the 0-based character where a part of it begins."""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

Comparison = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
# Null is None.
Value = str | int | float | bool | None | tuple["Value", ...]


class Constant(Struct, frozen=True):
    """A value as it is written."""

    value: Value
    at: int


class Path(Struct, frozen=True):
    """An input of the pipeline or a step, then the field, then members of objects."""

    names: tuple[str, ...]
    at: int


class Length(Struct, frozen=True):
    """`len(...)`."""

    of: "Node"
    at: int


class Not(Struct, frozen=True):
    """`not ...`."""

    of: "Node"
    at: int


class Junction(Struct, frozen=True):
    """`parts` are two or more."""

    word: Literal["and", "or"]
    parts: tuple["Node", ...]
    at: int


class Compared(Struct, frozen=True):
    """`left operator right`."""

    left: "Node"
    operator: Comparison
    right: "Node"
    at: int


Node = Constant | Path | Length | Not | Junction | Compared


def paths_of(node: Node) -> Iterator[Path]:
    """Every path in it, from left to right."""
    match node:
        case Path():
            yield node
        case Length(of) | Not(of):
            yield from paths_of(of)
        case Junction(parts=parts):
            for part in parts:
                yield from paths_of(part)
        case Compared(left, _, right):
            yield from paths_of(left)
            yield from paths_of(right)
        case Constant():
            return
