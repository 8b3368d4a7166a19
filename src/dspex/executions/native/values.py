"""From the text of one output field to its value, as `dspy.adapters.utils.parse_value` does it."""

import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter

from dspex.executions.native.repairing import Repair

ValueParser = Callable[[Any, Repair], Any]


def value_parser(annotation: Any) -> ValueParser:
    """A parser for one annotation; raises ValueError when the value does not fit."""
    if annotation is str:
        return _text
    validate = TypeAdapter(annotation).validate_python
    origin = get_origin(annotation)
    if origin is Literal:
        return _literal_parser(get_args(annotation), validate)
    keeps_text = origin in (Union, types.UnionType) and {type(None), str} <= set(get_args(annotation))

    def parse(value: Any, repair: Repair) -> Any:
        if not isinstance(value, str) or keeps_text:
            return validate(value)
        return validate(_literal_or_text(value, repair))

    return parse


def _literal_parser(allowed: tuple[Any, ...], validate: Callable[[Any], Any]) -> ValueParser:
    def parse(value: Any, repair: Repair) -> Any:
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
            value = _literal_or_text(text, repair)
        return validate(value)

    return parse


def _text(value: Any, _: Repair) -> str:
    return str(value)


def _literal_or_text(text: str, repair: Repair) -> Any:
    candidate = repair.loads(text)
    if candidate == "" and text != "":
        try:
            return repair.literal(text)
        except (ValueError, SyntaxError):
            return text
    return candidate
