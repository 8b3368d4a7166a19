"""Values as both databases can hold them, so that what is read equals what was written.

Models write anything: NUL characters (which PostgreSQL's text refuses) and lone surrogates (which UTF-8
can't carry). JSON keeps both as escapes, in text that is otherwise UTF-8. Plain text columns escape them
with ESC (U+001B) and four hexadecimal digits; ESC itself becomes ESC001b. NaN and the infinities, which
JSON lacks, are stored as null, as they are answered.
"""

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

import orjson

from dspex.kit.errors import Invalid

MAX_DEPTH = 254
_UNSAFE = re.compile("[\x00\x1b\ud800-\udfff]")
_ESCAPED = re.compile("\x1b([0-9a-f]{4})")
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)


def json_text(value: Any) -> str:
    """JSON in the order given. Raises TypeError for what JSON can't say, Invalid beyond 254 levels."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # Lone surrogates, integers beyond 64 bits, keys that are no text: rare, so the slow way is fine.
        return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)


def _finite(value: Any, depth: int = 0) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict | list | tuple) and depth >= MAX_DEPTH:
        raise Invalid(f"A value is nested deeper than {MAX_DEPTH} levels.", code="nested_too_deeply")
    if isinstance(value, dict):
        return {key: _finite(member, depth + 1) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member, depth + 1) for member in value]
    return value


def json_value(text: str) -> Any:
    """The reverse. Not orjson: it refuses lone surrogates and rounds large integers."""
    return json.loads(text)


def escape(text: str) -> str:
    """One to one, so that equal texts stay equal and filters find them."""
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub(lambda found: f"\x1b{ord(found[0]):04x}", text)


def unescape(text: str) -> str:
    if "\x1b" not in text:
        return text
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def utc(at: datetime) -> datetime:
    """The same moment in UTC; moments before year 1 or after 9999 there become the nearest one.

    Raises ValueError for a time without a zone: nobody can know when it was.
    """
    if at.tzinfo is UTC:
        return at
    if at.tzinfo is None:
        raise ValueError(f"{at.isoformat()} has no time zone")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        return _EARLIEST if at.year == 1 else _LATEST


def time_text(at: datetime) -> str:
    """UTC in a fixed width, so that text order is time order: 2026-01-31T12:00:00.000000+00:00."""
    return utc(at).isoformat(timespec="microseconds")
