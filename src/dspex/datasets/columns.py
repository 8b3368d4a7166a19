"""From the columns of a file to the fields of examples."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

from msgspec import Struct

from dspex.datasets.records import Example, Side
from dspex.datasets.rules import example_of
from dspex.kit import json
from dspex.kit.errors import Invalid, Problem
from dspex.signatures.problems import kind_of, pointer_to

CellType = Literal["str", "int", "float", "bool", "json"]
CELL_TYPES: tuple[CellType, ...] = get_args(CellType)
MOST_COLUMNS = 200
_COLUMN = re.compile(
    r"\s*(?P<field>[^,:=\x00-\x1f]{1,200}?)\s*(?::\s*(?P<type>\w+)\s*)?(?:=\s*(?P<column>[^,\x00-\x1f]{1,200}?)\s*)?"
)
_INTEGER = re.compile(r"[+-]?\d{1,400}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_BOOLEANS: Final[Mapping[str, bool]] = {"true": True, "false": False}


class Record(Struct, frozen=True):
    """One record of a file. `number` is its line, or its place where there are no lines.

    `value` is JSON. In a `text` record every value is text that stands for something.
    """

    number: int
    value: Any
    text: bool = False


class Column(Struct, frozen=True):
    """Where a field comes from."""

    field: str
    column: str
    type: CellType | None = None


class Columns(Struct, frozen=True):
    """Which columns are inputs and outputs. `outputs` None: all others."""

    inputs: Sequence[Column]
    outputs: Sequence[Column] | None


def columns_of(inputs: str | None, outputs: str | None) -> Columns | None:
    """From texts such as "question, k:int = top_k"; None when neither is given: records are then rows as they are.

    Raises Invalid (code bad_columns).
    """
    if inputs is None and outputs is None:
        return None
    if inputs is None:
        raise _bad("inputs", "say which columns are inputs as well")
    taken = _columns("inputs", inputs)
    if not taken:
        raise _bad("inputs", "name one column at least")
    return Columns(taken, None if outputs is None else _columns("outputs", outputs))


def _columns(side: Side, text: str) -> list[Column]:
    found: list[Column] = []
    for part in text.split(",") if text.strip() else []:
        match = _COLUMN.fullmatch(part)
        if match is None:
            raise _bad(
                side, f"{part.strip()[:80]!r} is no column; write field, field:type or field:type=column"
            )
        wanted = match["type"]
        if wanted is not None and wanted not in CELL_TYPES:
            raise _bad(side, f"{wanted[:80]!r} is no type of a column; those are {', '.join(CELL_TYPES)}")
        cell: Any = wanted
        found.append(Column(match["field"], match["column"] or match["field"], cell))
    if len(found) > MOST_COLUMNS:
        raise _bad(side, f"at most {MOST_COLUMNS} columns")
    names = [one.field for one in found]
    if twice := next((one for one in names if names.count(one) > 1), None):
        raise _bad(side, f"{twice!r} is named twice")
    return found


def _bad(side: Side, message: str) -> Invalid:
    return Invalid(
        f"The {side} of the file are not clear: {message}.",
        code="bad_columns",
        problems=[Problem(f"/{side}", "bad_columns", message)],
    )


def example_in(record: Record, columns: Columns | None) -> Example | list[Problem]:
    """The example in a record; or what is wrong, with pointers within the record."""
    if columns is None:
        if record.text:
            message = "a table needs `inputs`: the columns that are inputs"
            raise Invalid(
                f"The file has columns, and which are inputs is not said; {message}.",
                code="bad_columns",
                problems=[Problem("/inputs", "bad_columns", message)],
            )
        return example_of(record.value)
    value = record.value
    if not isinstance(value, dict):
        return [
            Problem(
                "", "not_an_object", f"must be an object with the columns as members, not {kind_of(value)}"
            )
        ]
    problems: list[Problem] = []
    inputs = _taken(value, columns.inputs, record.text, problems)
    if columns.outputs is None:
        used = {one.column for one in columns.inputs}
        outputs = {name: one for name, one in value.items() if name not in used}
    else:
        outputs = _taken(value, columns.outputs, record.text, problems)
    return problems or Example(inputs, outputs)


def _taken(
    value: Mapping[str, Any], columns: Sequence[Column], text: bool, problems: list[Problem]
) -> dict[str, Any]:
    taken: dict[str, Any] = {}
    for one in columns:
        pointer = pointer_to("", [one.column])
        if one.column not in value:
            problems.append(Problem(pointer, "missing", "is required"))
            continue
        try:
            cell = value[one.column]
            taken[one.field] = read_cell(cell, one.type) if text else checked(cell, one.type)
        except ValueError as error:
            problems.append(Problem(pointer, "wrong_type", str(error)))
    return taken


def read_cell(text: str, wanted: CellType | None) -> Any:
    """The value that a cell of text stands for; an empty one is null, unless it is text. Raises ValueError."""
    if wanted in (None, "str"):
        return text
    stripped = text.strip()
    if not stripped:
        return None
    shown = repr(stripped[:40])
    if wanted == "int" and _INTEGER.fullmatch(stripped):
        return int(stripped)
    if wanted == "float" and _NUMBER.fullmatch(stripped) and abs(number := float(stripped)) != float("inf"):
        return number
    if wanted == "bool" and stripped.lower() in _BOOLEANS:
        return _BOOLEANS[stripped.lower()]
    if wanted == "json":
        try:
            return json.loads(stripped.encode())
        except (ValueError, RecursionError):
            raise ValueError(f"must be JSON, not {shown}") from None
    names = {"int": "an integer", "float": "a finite number", "bool": "true or false"}
    raise ValueError(f"must be {names[wanted or '']}, not {shown}")


def checked(value: Any, wanted: CellType | None) -> Any:
    """A value that is typed already. Raises ValueError when it is of another type than wanted; null is of each."""
    if value is None or wanted in (None, "json"):
        return value
    match wanted:
        case "str":
            good = isinstance(value, str)
        case "bool":
            good = isinstance(value, bool)
        case "int":
            good = isinstance(value, int) and not isinstance(value, bool)
        case _:
            good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good:
        raise ValueError(f"must be of type {wanted}, not {kind_of(value)}")
    return value
