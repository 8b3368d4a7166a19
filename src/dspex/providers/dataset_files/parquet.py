"""Parquet, by pyarrow: a batch of rows at a time, whatever the size of the file's own groups."""

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, BinaryIO
from uuid import UUID

from dspex.datasets.columns import MOST_COLUMNS, Record
from dspex.kit.errors import Invalid, Problem
from dspex.signatures.problems import pointer_to

BATCH = 200
# Of a column in one group as it is unpacked: a small file may hold a large one.
MOST_GROUP_BYTES = 256 * 1024 * 1024


def parquet_records(file: BinaryIO) -> Iterator[Record | Problem]:
    """Numbers are places, from 1. Raises Invalid (code bad_file)."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file, pre_buffer=False, buffer_size=1_048_576) as opened:
            _check(opened)
            number = 0
            for batch in opened.iter_batches(batch_size=BATCH, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield _record(number, row)
    except (ArrowException, OSError, ValueError) as error:
        raise _unreadable(str(error).splitlines()[0][:300]) from None


def _check(opened: Any) -> None:
    metadata = opened.metadata
    names = list(opened.schema_arrow.names)
    if len(names) > MOST_COLUMNS or len(set(names)) < len(names):
        raise _unreadable(f"it needs at most {MOST_COLUMNS} columns, each with a name of its own")
    for index in range(metadata.num_row_groups):
        if metadata.row_group(index).total_byte_size > MOST_GROUP_BYTES:
            raise _unreadable(
                f"a row group is larger than {MOST_GROUP_BYTES} bytes; write it with smaller row groups"
            )


def _record(number: int, row: dict[str, Any]) -> Record | Problem:
    values: dict[str, Any] = {}
    for name, value in row.items():
        try:
            values[name] = _json(value)
        except ValueError as error:
            return Problem(pointer_to(f"/{number}", [name]), "wrong_type", str(error))
    return Record(number, values)


def _json(value: Any) -> Any:
    """The JSON value of one of Arrow's as Python. Raises ValueError when it has none."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{value} does not exist in JSON")
            return value
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime():
            return (value if value.tzinfo is None else value.astimezone(UTC)).isoformat()
        case date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case list():
            return [_json(one) for one in value]
        case dict():
            return {str(name): _json(one) for name, one in value.items()}
        case _:
            raise ValueError(f"a Python {type(value).__name__} has no JSON form; leave the column out")


def _unreadable(reason: str) -> Invalid:
    return Invalid(
        f"The file is no Parquet that can be read: {reason}.",
        code="bad_file",
        problems=[Problem("", "bad_file", reason)],
    )
