"""From typed inputs to the messages DSPy would send."""

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from pydantic import TypeAdapter

from dspex.executions.errors import UnsupportedInput
from dspex.gateway.records import Message
from dspex.kit.errors import Problem

# A user message with this in it is split by DSPy into parts of other types; only DSPy can do that.
CUSTOM_TYPE_MARKER = "<<CUSTOM-TYPE-START-IDENTIFIER>>"
_PLAIN = (str, int, float, bool, type(None))
_adapters: dict[type, TypeAdapter[Any]] = {}


class Template(Struct, frozen=True):
    """One stage's prompt: the static messages, the text before each input's value, the text at the end."""

    messages: tuple[Message, ...]
    heads: tuple[tuple[str, str], ...]
    tail: str

    def fill(self, inputs: Mapping[str, Any]) -> tuple[Message, ...]:
        """The whole conversation. An absent input is left out, None becomes "None".

        Raises UnsupportedInput for text that DSPy would read as a custom type.
        """
        parts: list[str] = []
        for name, head in self.heads:
            if name in inputs:
                value = inputs[name]
                parts.append(head if parts else head.removeprefix("\n\n"))
                parts.append(value if type(value) is str else render_value(value))
        parts.append(self.tail if parts else self.tail.removeprefix("\n\n"))
        content = "".join(parts)
        if CUSTOM_TYPE_MARKER in content:
            raise UnsupportedInput(
                "An input contains DSPy's marker for custom types, which native execution does not render; "
                f"remove {CUSTOM_TYPE_MARKER!r} from it.",
                problems=[Problem("/inputs", "custom_type_marker", "contains DSPy's custom type marker")],
            )
        return (*self.messages, Message("user", content))


def render_value(value: Any) -> str:
    """A value as `dspy.adapters.utils.format_field_value` writes it: JSON for lists and objects, else str."""
    plain = (
        value
        if isinstance(value, _PLAIN)
        else _adapter(type(value)).dump_python(value, mode="json", fallback=str)
    )
    if isinstance(plain, list | dict):
        return json.dumps(plain, ensure_ascii=False)
    return str(plain)


def _adapter(kind: type) -> TypeAdapter[Any]:
    # Only built-in containers and dates are kept: models come and go with their programs.
    if kind.__module__ not in ("builtins", "datetime"):
        return TypeAdapter(kind)
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]
