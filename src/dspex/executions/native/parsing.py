"""From a reply to output values, as DSPy's chat and JSON adapters do it."""

import copy
import re
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct
from pydantic import ValidationError

from dspex.executions.errors import AdapterParseError, UnreadableReply
from dspex.executions.native.repairing import Repair
from dspex.executions.native.values import ValueParser

_HEADER = re.compile(r"\[\[ ## (\w+) ## \]\]")
_BRACE = re.compile(r"[{}]")
# Above so many errors their text is not made: it takes longer than validating.
_ERRORS_TOLD = 20
REQUIRED: Any = object()


class Output(Struct, frozen=True):
    """One output field: how to parse it, and what it is when the reply lacks it (REQUIRED: an error)."""

    name: str
    parse: ValueParser
    when_absent: Any = REQUIRED


class ReplyParser(Struct, frozen=True):
    """Parses the replies of one adapter.

    `parse` raises AdapterParseError, which names what is wrong, or UnreadableReply, which no fallback mends.
    """

    adapter: Literal["chat", "json"]
    outputs: tuple[Output, ...]

    def parse(self, text: str | None, repair: Repair) -> dict[str, Any]:
        """The outputs in the signature's order."""
        if not text:
            raise AdapterParseError("The model returned an empty reply; try again or look at its settings.")
        try:
            read = _chat if self.adapter == "chat" else _json
            return _complete(self, text, read(self.outputs, text, repair))
        except (RecursionError, MemoryError, ValueError):
            # Here DSPy lets Python's own error through and does not ask again.
            raise UnreadableReply("The model's reply is nested too deeply to be parsed.") from None


def _chat(outputs: tuple[Output, ...], text: str, repair: Repair) -> dict[str, Any]:
    parsers = {output.name: output.parse for output in outputs}
    lines = text.splitlines()
    headers = [
        (at, match)
        for at, line in enumerate(lines)
        if "[[ ## " in line and (match := _HEADER.match(line.strip()))
    ]
    ends = [*(at for at, _ in headers), len(lines)][1:]
    values: dict[str, Any] = {}
    for (at, match), end in zip(headers, ends, strict=True):
        name = match.group(1)
        if name not in values and name in parsers:
            # DSPy cuts the untrimmed line at the trimmed match's end; so do we.
            rest = lines[at][match.end() :].strip()
            section = "\n".join([rest, *lines[at + 1 : end]] if rest else lines[at + 1 : end])
            values[name] = _value(name, parsers[name], section.strip(), repair)
    return values


def _json(outputs: tuple[Output, ...], text: str, repair: Repair) -> dict[str, Any]:
    found = repair.loads(text)
    if not isinstance(found, dict) and (inner := first_object(text)):
        found = repair.loads(inner)
    if not isinstance(found, dict):
        raise AdapterParseError("The model's reply is not a JSON object: " + _excerpt(text))
    parsers = {output.name: output.parse for output in outputs}
    return {
        name: _value(name, parsers[name], value, repair) for name, value in found.items() if name in parsers
    }


def first_object(text: str) -> str | None:
    """The first `{` that is closed, up to where; what DSPy finds with the recursive `\\{(?:[^{}]|(?R))*\\}`.

    That expression takes the square of the length for braces that stay open; this looks at each brace once.
    """
    opened: list[int] = []
    first: tuple[int, int] | None = None
    for brace in _BRACE.finditer(text):
        if brace.group() == "{":
            opened.append(brace.start())
        elif opened:
            start = opened.pop()
            if first is None or start < first[0]:
                first = start, brace.end()
            if not opened:
                break
    return text[first[0] : first[1]] if first else None


def _value(name: str, parse: ValueParser, raw: Any, repair: Repair) -> Any:
    try:
        return parse(raw, repair)
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
    if isinstance(error, ValidationError) and error.error_count() > _ERRORS_TOLD:
        return f"{error.error_count()} validation errors for {error.title}"
    return " ".join(str(error).split("\n")[:3])
