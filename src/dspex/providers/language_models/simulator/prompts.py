"""Reading a prompt that DSPy's chat or JSON adapter wrote: what is asked, and with which demos.

Only the shape that every prompt of an adapter has is relied on. Anything else is no DSPy prompt, and None.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from msgspec import Struct

from dspex.gateway.records import Message

JsonSchema = Mapping[str, Any]

_INPUTS = "Your input fields are:\n"
_OUTPUTS = "\nYour output fields are:\n"
_STRUCTURE = (
    "\nAll interactions will be structured in the following way, with the appropriate values filled in."
)
_JSON_OUTPUTS = "\n\nOutputs will be a JSON object with the following fields.\n\n"
_OBJECTIVE = "\nIn adhering to this structure, your objective is: "
_TAILS = (
    "Respond with the corresponding output fields, starting with the field `[[ ##",
    "Respond with a JSON object in the following order of fields: `",
)
_INCOMPLETE = "This is an example of the task, though some input or output fields are not supplied."
_NOT_SUPPLIED = "Not supplied for this particular example."
_HEADER = re.compile(r"^\[\[ ## (\w+) ## \]\][ \t]*", re.MULTILINE)
_FIELD = re.compile(r"^\d+\. `(\w+)` \((.*)\):", re.MULTILINE)
_NOTE = "        # note: the value you produce "
_BOUND = re.compile(
    r"(greater than or equal to|greater than|less than or equal to|less than): (-?[\d.eE+-]+\d|\d)"
)
_BOUND_KEYS = {
    "greater than or equal to": "minimum",
    "greater than": "exclusiveMinimum",
    "less than or equal to": "maximum",
    "less than": "exclusiveMaximum",
}


class PromptField(Struct, frozen=True):
    """A field as the system message describes it. `schema` is a JSON Schema; {} admits anything.

    `plain` says that DSPy reads the text of a chat section as it stands (str), not as JSON.
    """

    name: str
    type_name: str
    schema: JsonSchema
    plain: bool


class Layout(Struct, frozen=True):
    """What the system message fixes for every call of one predictor."""

    format: Literal["chat", "json"]
    instructions: str
    inputs: tuple[str, ...]
    outputs: tuple[PromptField, ...]


class Demo(Struct, frozen=True):
    """An earlier turn; fields that were not supplied are absent."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


class Prompt(Struct, frozen=True):
    layout: Layout
    inputs: Mapping[str, str]
    demos: tuple[Demo, ...]


def read_prompt(messages: Sequence[Message]) -> Prompt | None:
    """The prompt, or None when the messages are not what DSPy 3.4's chat or JSON adapter sends."""
    if len(messages) < 2 or messages[0].role != "system" or messages[-1].role != "user":
        return None
    layout = read_layout(messages[0].content)
    if layout is None:
        return None
    demos: tuple[Demo, ...] = ()
    if len(messages) > 2:
        turns = messages[1:-1]
        demos = tuple(
            _demo(layout, user.content, assistant.content)
            for user, assistant in zip(turns[::2], turns[1::2], strict=False)
            if user.role == "user" and assistant.role == "assistant"
        )
    return Prompt(layout, _sections(_without_tail(messages[-1].content), layout.inputs), demos)


@lru_cache(maxsize=512)
def read_layout(system: str) -> Layout | None:
    """The static part, kept by its text: one predictor sends the same system message with every call."""
    opening, structured, rest = system.partition(_STRUCTURE)
    _, found, outputs = opening.partition(_OUTPUTS)
    body, ended, objective = rest.rpartition(_OBJECTIVE)
    if not (system.startswith(_INPUTS) and structured and found and ended):
        return None
    types = dict(_FIELD.findall(outputs))
    head, is_json, block = body.partition(_JSON_OUTPUTS)
    if is_json:
        try:
            notes = json.loads(block)
        except ValueError:
            return None
        if not isinstance(notes, dict):
            return None
        produced = [(name, str(note)) for name, note in notes.items()]
        taken = [match.group(1) for match in _HEADER.finditer(head)]
    else:
        parts = _split(body)
        produced = [(name, text) for name, text in parts if name in types and f"{{{name}}}" in text]
        names = {name for name, _ in produced}
        taken = [name for name, _ in parts if name not in names and name != "completed"]
    if not produced:
        return None
    constraints = _constraints(outputs)
    return Layout(
        format="json" if is_json else "chat",
        instructions="\n".join(line.removeprefix(" " * 8) for line in objective.strip().splitlines()),
        inputs=tuple(taken),
        outputs=tuple(
            _field(name, types.get(name, "str"), note, constraints.get(name, {})) for name, note in produced
        ),
    )


def _constraints(described: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    name = ""
    for line in described.splitlines():
        if match := _FIELD.match(line):
            name = match.group(1)
        elif line.startswith("Constraints: "):
            found[name] = {_BOUND_KEYS[word]: float(bound) for word, bound in _BOUND.findall(line)}
    return found


def _field(name: str, type_name: str, note: str, bounds: Mapping[str, float]) -> PromptField:
    demand = note.partition(_NOTE)[2].strip()
    schema: dict[str, Any]
    if demand.startswith("must adhere to the JSON schema: "):
        schema = _schema(demand.removeprefix("must adhere to the JSON schema: "))
    elif demand == "must be True or False":
        schema = {"type": "boolean"}
    elif demand == "must be a single int value":
        schema = {"type": "integer", **bounds}
    elif demand == "must be a single float value":
        schema = {"type": "number", **bounds}
    elif ": " in demand and demand.startswith(("must exactly match", "must be one of")):
        schema = {"enum": _choices(type_name, demand.partition(": ")[2])}
    else:
        schema = {"type": "string"}
    return PromptField(name, type_name, schema, _reads_plain_text(schema))


def _schema(text: str) -> dict[str, Any]:
    """{} when a description broke the note: then any value will do."""
    try:
        schema = json.loads(text)
    except ValueError:
        return {}
    return schema if isinstance(schema, dict) else {}


def _reads_plain_text(schema: JsonSchema) -> bool:
    """str, a choice, or a union of str and None: DSPy takes the section's text itself."""
    if "enum" in schema:
        return "type" not in schema
    if "anyOf" in schema:
        return {"type": "null"} in schema["anyOf"] and {"type": "string"} in schema["anyOf"]
    return schema == {"type": "string"}


def _choices(type_name: str, listed: str) -> list[Any]:
    """The type's name tells choices apart that contain "; "; an enumeration's name does not."""
    if type_name.startswith("Literal["):
        try:
            return list(ast.literal_eval(type_name.removeprefix("Literal")))
        except (ValueError, SyntaxError):
            return listed.split("; ")
    return listed.split("; ")


def _demo(layout: Layout, user: str, assistant: str) -> Demo:
    inputs = _sections(_without_tail(user.removeprefix(_INCOMPLETE)), layout.inputs)
    names = tuple(field.name for field in layout.outputs)
    if layout.format == "chat":
        outputs = _sections(assistant, (*names, "completed"))
    else:
        try:
            parsed = json.loads(assistant)
        except ValueError:
            parsed = {}
        values = parsed.items() if isinstance(parsed, dict) else ()
        outputs = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values}
    return Demo(
        inputs,
        {
            name: outputs[name]
            for name in names
            if not outputs.get(name, _NOT_SUPPLIED).startswith(_NOT_SUPPLIED)
        },
    )


def _without_tail(content: str) -> str:
    for tail in _TAILS:
        at = content.rfind(tail)
        if at >= 0:
            return content[:at]
    return content


def _sections(text: str, names: Sequence[str]) -> dict[str, str]:
    """The first section of each name; a header that stands inside a value under another name stays text."""
    found: dict[str, str] = {}
    marks = [match for match in _HEADER.finditer(text) if match.group(1) in names]
    for position, mark in enumerate(marks):
        end = marks[position + 1].start() if position + 1 < len(marks) else len(text)
        found.setdefault(mark.group(1), text[mark.end() : end].strip())
    return found


def _split(text: str) -> list[tuple[str, str]]:
    marks = list(_HEADER.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [(mark.group(1), text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]
