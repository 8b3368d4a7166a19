"""JSON that loses nothing: orjson's speed, Python's exactness where orjson gives up."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import orjson

# orjson reads integers beyond 64 bits as floats; a run of digits this long may be one.
_LONG_NUMBER = re.compile(rb"\d{19}")


def dumps(value: Any, *, sort_keys: bool = False) -> bytes:
    """Times become UTC with a Z. Also writes integers of any size and, as escapes, lone surrogates.

    Raises ValueError for NaN inside such a value, RecursionError for one nested some hundred levels deep.
    """
    option = orjson.OPT_UTC_Z | (orjson.OPT_SORT_KEYS if sort_keys else 0)
    try:
        return orjson.dumps(value, option=option)
    except TypeError:
        return json.dumps(
            value, separators=(",", ":"), allow_nan=False, sort_keys=sort_keys, default=_plain
        ).encode()


def time_text(moment: datetime) -> str:
    """As `dumps` writes it, for documents that are kept as text."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def why_not_json(error: ValueError | RecursionError) -> str:
    """What is wrong with a single line, and where in it; its number is for the caller to say."""
    return f"{error.msg} (column {error.colno})" if isinstance(error, json.JSONDecodeError) else str(error)


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return time_text(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def loads(body: bytes) -> Any:
    """Raises ValueError for anything that is not JSON, NaN and infinities included."""
    value = orjson.loads(body)
    if _LONG_NUMBER.search(body):
        value = json.loads(body)
    return value


def nests_deeper_than(value: Any, levels: int) -> bool:
    """Whether lists and objects lie in each other more than so many levels deep. Takes no recursion."""
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
