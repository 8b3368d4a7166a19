"""A condition as a tree. `at` is the 0-based character where a part of it begins."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Comparison = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
# Null is None.
Value = str | int | float | bool | None | tuple["Value", ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """A value as it is written."""

    value: Value
    at: int


@dataclass(frozen=True, slots=True)
class Path:
    """An input of the pipeline or a step, then the field, then members of objects."""

    names: tuple[str, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Length:
    """`len(...)`."""

    of: "Node"
    at: int


@dataclass(frozen=True, slots=True)
class Not:
    """`not ...`."""

    of: "Node"
    at: int


@dataclass(frozen=True, slots=True)
class Junction:
    """`parts` are two or more."""

    word: Literal["and", "or"]
    parts: tuple["Node", ...]
    at: int


@dataclass(frozen=True, slots=True)
class Compared:
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
