"""From the text of one output field to its value, as `dspy.adapters.utils.parse_value` does it."""

import ast
import json
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

import json_repair
from pydantic import TypeAdapter

from dspex.executions.errors import AdapterParseError

# json_repair is quadratic on hostile text: 5 000 opening brackets take most of a second.
REPAIR_LIMIT = 32_768

ValueParser = Callable[[Any], Any]


def value_parser(annotation: Any) -> ValueParser:
    """A parser for one annotation; raises ValueError when the value does not fit."""
    if annotation is str:
        return str
    validate = TypeAdapter(annotation).validate_python
    origin = get_origin(annotation)
    if origin is Literal:
        return _literal_parser(get_args(annotation), validate)
    keeps_text = origin in (Union, types.UnionType) and {type(None), str} <= set(get_args(annotation))

    def parse(value: Any) -> Any:
        if not isinstance(value, str) or keeps_text:
            return validate(value)
        return validate(_literal_or_text(value))

    return parse


def _literal_parser(allowed: tuple[Any, ...], validate: Callable[[Any], Any]) -> ValueParser:
    def parse(value: Any) -> Any:
        if value in allowed:
            return value
        if isinstance(value, str):
            text = value.strip()
            if text.startswith(("Literal[", "str[")) and text.endswith("]"):
                text = text[text.find("[") + 1 : -1]
            if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
                text = text[1:-1]
            if text in allowed:
                return text
            value = _literal_or_text(text)
        return validate(value)

    return parse


def _literal_or_text(text: str) -> Any:
    candidate = repair(text)
    if candidate == "" and text != "":
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text
    return candidate


def repair(text: str) -> Any:
    """`json_repair.loads`, refusing what would hold a processor for seconds.

    Raises AdapterParseError for text over the limit that is not JSON already.
    """
    if len(text) > REPAIR_LIMIT:
        try:
            return json.loads(text)
        except ValueError:
            raise AdapterParseError(
                f"The model's reply is not JSON and, with {len(text)} characters, too long to be repaired "
                f"(the limit is {REPAIR_LIMIT}).",
                code="reply_too_long_to_repair",
            ) from None
    return json_repair.loads(text)


def needs_care(text: str) -> bool:
    """Whether parsing this text may take long enough to be kept off the event loop."""
    return len(text) > 2_000 and text.count("(") + text.count("[") + text.count("{") > 200
