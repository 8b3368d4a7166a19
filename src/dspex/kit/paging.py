"""Keyset pages: an opaque cursor that survives inserts, unlike an offset."""

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Generic, TypeVar

from msgspec import Struct

from dspex.kit.errors import Invalid, Problem

T = TypeVar("T")
MAX_LIMIT = 200
DEFAULT_LIMIT = 50


class Page(Struct, Generic[T], frozen=True):
    """`next_cursor` is None on the last page."""

    data: tuple[T, ...]
    next_cursor: str | None = None


def fitting(sizes: Iterable[int], most: int) -> int:
    """How many of them, from the first, add up to `most` at the most; one if there is one."""
    count = total = 0
    for size in sizes:
        total += size
        if count and total > most:
            break
        count += 1
    return count


def encode_cursor(*key: str | int | float | None) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def _storable(part: object) -> bool:
    """Whether a database takes it as a parameter: a forged cursor must not become its error."""
    if isinstance(part, str):
        return "\x00" not in part and part.isprintable()
    return part is None or isinstance(part, float) or (isinstance(part, int) and abs(part) < 2**63)


def decode_cursor(cursor: str, length: int) -> list[str | int | float | None]:
    """The key parts that `encode_cursor` took; raises Invalid for anything else."""
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, UnicodeDecodeError):
        key = None
    valid = isinstance(key, list) and len(key) == length
    if not valid or not all(_storable(part) for part in key):
        raise Invalid(
            "The cursor is not one that this API returned; leave it out to start from the first page.",
            code="bad_cursor",
            problems=[Problem("/cursor", "bad_cursor", "not a cursor of this list")],
        )
    return list(key)
