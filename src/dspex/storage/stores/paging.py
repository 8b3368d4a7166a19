"""Keyset pages over ordered columns."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from dspex.kit.errors import Invalid, Problem
from dspex.kit.paging import Page

T = TypeVar("T")


def page(rows: Sequence[T], limit: int, cursor: Callable[[T], str]) -> Page[T]:
    """From a query for `limit` + 1 rows: the row too many only says that there is a next page."""
    data = tuple(rows[:limit])
    return Page(data, cursor(data[-1]) if len(rows) > limit else None)


def foreign_cursor() -> Invalid:
    return Invalid(
        "The cursor belongs to another list or sort order; leave it out to start from the first page.",
        code="bad_cursor",
        problems=[Problem("/cursor", "bad_cursor", "not a cursor of this list")],
    )


def past(columns: Sequence[sa.ColumnElement[Any]], values: Sequence[Any], *, descending: bool) -> Any:
    """Rows behind the given position, where every column is ordered the same way."""
    left = sa.tuple_(*columns)
    right = sa.tuple_(
        *(sa.literal(value, column.type) for column, value in zip(columns, values, strict=True))
    )
    return left < right if descending else left > right
