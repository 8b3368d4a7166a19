"""Typed Python values as JSON values."""

import datetime
import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def to_json(value: Any) -> Any:
    """A JSON value: objects as dicts, dates as ISO 8601 text, NaN and infinities as text.

    NaN, Infinity and -Infinity become those words, because JSON has no number for them and null would hide
    what the model said. Sets, bytes and other Python values, which DSPy makes of a literal where the type is
    `Any`, become their Python text.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else _word(value)
        case list() | tuple():
            return [to_json(one) for one in value]
        case Mapping():
            return {str(key): to_json(one) for key, one in value.items()}
        case BaseModel():
            return {name: to_json(getattr(value, name)) for name in type(value).model_fields}
        case datetime.date():
            return value.isoformat()
    return repr(value)


def _word(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def outputs_to_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """All outputs as JSON values, by name; see `to_json`."""
    return {name: value if type(value) is str else to_json(value) for name, value in values.items()}
