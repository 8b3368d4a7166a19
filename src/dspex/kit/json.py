"""JSON that loses nothing: orjson's speed, Python's exactness where orjson gives up."""

import json
import re
from typing import Any

import orjson

# orjson reads integers beyond 64 bits as floats; a run of digits this long may be one.
_LONG_NUMBER = re.compile(rb"\d{19}")


def dumps(value: Any) -> bytes:
    """Also integers of any size and text with lone surrogates (as escapes), which orjson refuses."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def loads(body: bytes) -> Any:
    """Raises ValueError for anything that is not JSON, NaN and infinities included."""
    value = orjson.loads(body)
    if _LONG_NUMBER.search(body):
        value = json.loads(body)
    return value
