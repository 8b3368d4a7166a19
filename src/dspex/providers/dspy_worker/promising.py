"""What a module returned, held against the outputs that its signature promises."""

import datetime
import json
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import Any

import dspy
from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticSerializationError, to_jsonable_python

from dspex.executions.errors import ProgramFailed
from dspex.signatures.annotations import annotations_of
from dspex.signatures.records import Signature
from dspex.signatures.validation import OutputChecker
from dspex.signatures.values import to_json

WRONG = "wrong_outputs"


def members_of(prediction: Any, signature: Signature) -> dict[str, Any]:
    """The promised outputs by name, all that there are where none is promised. Raises ProgramFailed (wrong_outputs)."""
    if isinstance(prediction, dspy.Prediction):
        found = dict(prediction.items())
    elif isinstance(prediction, Mapping):
        found = {str(name): value for name, value in prediction.items()}
    else:
        raise ProgramFailed(
            f"The program returned a {type(prediction).__name__}, not a dspy.Prediction or a dict.",
            code=WRONG,
        )
    if not signature.outputs:
        return found
    missing = [field.name for field in signature.outputs if field.name not in found]
    if missing:
        has = ", ".join(repr(name) for name in found) or "nothing"
        raise ProgramFailed(
            f"The program returned {has}, but its signature promises "
            f"{', '.join(repr(name) for name in missing)} as well.",
            code=WRONG,
        )
    return {field.name: found[field.name] for field in signature.outputs}


class Promise:
    """The outputs of a module of users' own. Nobody has read these before, as DSPy reads what a model replies."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._checker = OutputChecker(signature)
        self._annotations = annotations_of(signature)

    def outputs_of(self, prediction: Any) -> dict[str, Any]:
        """Values that have a JSON form, of the promised types. Raises ProgramFailed (code wrong_outputs)."""
        values = _plain_values(members_of(prediction, self._signature))
        return {**values, **self._read(values)}

    def values_of(self, prediction: Any) -> dict[str, Any]:
        """As `outputs_of`, for other Python code: objects that JSON says in full stay what they are."""
        given = members_of(prediction, self._signature)
        plain = _plain_values(given)
        kept = {
            name: given[name] if to_json(given[name]) == to_json(value) else value
            for name, value in plain.items()
        }
        return {**kept, **self._read(plain)}

    def _read(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those that do not fit as they are, read as DSPy would; as there, what breaks only a constraint passes."""
        read: dict[str, Any] = {}
        for problem in self._checker.violations(values):
            name = problem.pointer.split("/")[2]
            if name in read:
                continue
            try:
                read[name] = _typed(values[name], self._annotations[name])
            except (ValueError, RecursionError):
                raise ProgramFailed(
                    "The program returned something else than its signature promises: "
                    f"{problem.pointer} {problem.message}.",
                    code=WRONG,
                ) from None
        return read


def _typed(value: Any, annotation: Any) -> Any:
    """As `dspy.adapters.utils.parse_value`, but that it mends no JSON, and makes no text of lists, objects and None."""
    if annotation is str:
        if isinstance(value, str | int | float):
            return str(value)
        raise ValueError
    if isinstance(value, str):
        # What is no JSON stays text, which may be what is wanted: a date, or one of a union.
        with suppress(ValueError):
            value = json.loads(value)
    return TypeAdapter(annotation).validate_python(value)


def _plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    plain = {}
    for name, value in values.items():
        try:
            plain[name] = _plain(value)
        except PydanticSerializationError as error:
            raise ProgramFailed(
                f"The program returned in {name!r} what has no JSON form ({error}). Return text, numbers, lists, "
                "dicts, dates, dataclasses or pydantic models.",
                code=WRONG,
            ) from None
        except (RecursionError, ValueError):
            raise ProgramFailed(
                f"The program returned in {name!r} what is nested too deeply, or holds itself.", code=WRONG
            ) from None
    return plain


def _plain(value: Any) -> Any:
    """Without objects that only Python knows. Floats that JSON does not have, and dates, stay what they are."""
    if callable(as_list := getattr(value, "tolist", None)):
        # NumPy's numbers and arrays, and all that follow them.
        return _plain(as_list())
    match value:
        case Enum():
            return _plain(value.value)
        case None | bool() | int() | float() | str() | datetime.date():
            return value
        case list() | tuple():
            return [_plain(one) for one in value]
        case Mapping() | dspy.Example():
            return {str(key): _plain(one) for key, one in value.items()}
        case BaseModel():
            return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    return to_jsonable_python(value)
