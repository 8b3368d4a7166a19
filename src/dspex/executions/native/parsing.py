"""From a reply to output values, as DSPy's chat and JSON adapters do it."""

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import regex

from dspex.executions.errors import AdapterParseError, UnreadableReply
from dspex.executions.native.repairing import repair
from dspex.executions.native.values import ValueParser

_HEADER = re.compile(r"\[\[ ## (\w+) ## \]\]")
_OBJECT = regex.compile(r"\{(?:[^{}]|(?R))*\}", regex.DOTALL)
REQUIRED: Any = object()


@dataclass(frozen=True, slots=True)
class Output:
    """One output field: how to parse it, and what it is when the reply lacks it (REQUIRED: an error)."""

    name: str
    parse: ValueParser
    when_absent: Any = REQUIRED


@dataclass(frozen=True, slots=True)
class ReplyParser:
    """Parses the replies of one adapter.

    `parse` raises AdapterParseError, which names what is wrong, or UnreadableReply, which no fallback mends.
    """

    adapter: Literal["chat", "json"]
    outputs: tuple[Output, ...]

    def parse(self, text: str | None) -> dict[str, Any]:
        """The outputs in the signature's order."""
        if not text:
            raise AdapterParseError("The model returned an empty reply; try again or look at its settings.")
        try:
            return _complete(self, text, (_chat if self.adapter == "chat" else _json)(self.outputs, text))
        except (RecursionError, ValueError):
            # Here DSPy lets Python's own error through and does not ask again.
            raise UnreadableReply("The model's reply is nested too deeply to be parsed.") from None


def _chat(outputs: tuple[Output, ...], text: str) -> dict[str, Any]:
    parsers = {output.name: output.parse for output in outputs}
    sections: list[tuple[str | None, list[str]]] = [(None, [])]
    for line in text.splitlines():
        if match := _HEADER.match(line.strip()):
            # DSPy cuts the untrimmed line at the trimmed match's end; so do we.
            rest = line[match.end() :].strip()
            sections.append((match.group(1), [rest] if rest else []))
        else:
            sections[-1][1].append(line)
    values: dict[str, Any] = {}
    for name, lines in sections:
        if name is not None and name not in values and name in parsers:
            values[name] = _value(name, parsers[name], "\n".join(lines).strip())
    return values


def _json(outputs: tuple[Output, ...], text: str) -> dict[str, Any]:
    found = repair(text)
    if not isinstance(found, dict) and (match := _OBJECT.search(text)):
        found = repair(match.group(0))
    if not isinstance(found, dict):
        raise AdapterParseError("The model's reply is not a JSON object: " + _excerpt(text))
    parsers: Mapping[str, Callable[[Any], Any]] = {output.name: output.parse for output in outputs}
    return {name: _value(name, parsers[name], value) for name, value in found.items() if name in parsers}


def _value(name: str, parse: ValueParser, raw: Any) -> Any:
    try:
        return parse(raw)
    except ValueError as error:
        raise AdapterParseError(
            f"The model's value for {name!r} does not fit its type: {_excerpt(str(raw))} ({_first_line(error)})"
        ) from error


def _complete(parser: ReplyParser, text: str, values: Mapping[str, Any]) -> dict[str, Any]:
    completed: dict[str, Any] = {}
    missing = []
    for output in parser.outputs:
        if output.name in values:
            completed[output.name] = values[output.name]
        elif output.when_absent is not REQUIRED:
            completed[output.name] = copy.deepcopy(output.when_absent)
        else:
            missing.append(output.name)
    if missing:
        raise AdapterParseError(f"The model's reply lacks {', '.join(missing)}: {_excerpt(text)}")
    return completed


def _excerpt(text: str, length: int = 200) -> str:
    return repr(text if len(text) <= length else text[:length] + "…")


def _first_line(error: ValueError) -> str:
    return " ".join(str(error).split("\n")[:3])
