"""Keyset pages."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from dspex.kit.errors import Invalid, Problem
from dspex.kit.paging import Page, decode_cursor

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


def last_name(cursor: str) -> str:
    """Where a page ordered by name ended. Raises Invalid for a cursor of another list."""
    match decode_cursor(cursor, 1):
        case [str() as name]:
            return name
    raise foreign_cursor()
