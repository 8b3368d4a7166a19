"""A signature: the typed contract of a program."""

from typing import Any, Final, Literal

from msgspec import Struct

from dspex.signatures.types import Constraint, FieldType

SignatureStatus = Literal["draft", "active", "deprecated"]


class Unset:
    """The one value that means "no default was given", since None is a default."""

    def __repr__(self) -> str:
        return "UNSET"

    def __reduce__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


class Field(Struct, frozen=True):
    """One input or output.

    `constraints` are pairs such as ("ge", 0), with the names pydantic gives them: gt, ge, lt, le,
    multiple_of, min_length, max_length, pattern. `default` is a JSON value or UNSET.
    `typed` is False when the author wrote no type (it is then str).
    """

    name: str
    type: FieldType
    description: str | None = None
    default: Any = UNSET
    constraints: tuple[tuple[str, Constraint], ...] = ()
    typed: bool = True

    @property
    def has_default(self) -> bool:
        return self.default is not UNSET


class Signature(Struct, frozen=True):
    """Instructions, ordered inputs, ordered outputs. `instructions` None lets DSPy write its default."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    instructions: str | None = None
    name: str | None = None
