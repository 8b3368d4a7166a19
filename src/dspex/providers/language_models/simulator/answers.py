"""Deterministic answers: a value of its type for each output field, written as the adapter reads it."""

import json
from collections.abc import Mapping
from typing import Any

from dspex.providers.language_models.simulator.draws import Draws
from dspex.providers.language_models.simulator.prompts import Prompt, PromptField
from dspex.providers.language_models.simulator.values import draw_value, word

_SENTENCES = (
    'About "{quote}": the short answer is {word}.',
    'Given "{quote}", {word} fits best.',
    'For "{quote}" the answer is {word}.',
    '{Word}, judging by "{quote}".',
)
_QUOTED = 60


def answer_prompt(
    prompt: Prompt,
    draws: Draws,
    response_format: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] | None = None,
) -> str:
    """The whole reply. Values in `known` stand as they are; the other output fields are drawn."""
    return write_fields(prompt, draw_fields(prompt, draws, response_format, known))


def draw_fields(
    prompt: Prompt,
    draws: Draws,
    response_format: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A value for each output field, in the prompt's order.

    A JSON schema in `response_format` (as on the wire of an OpenAI-compatible server) wins over the notes
    of the prompt, because it also tells the values of an enumeration exactly.
    """
    known = known or {}
    schema = format_schema(response_format)
    properties = schema.get("properties") if schema else None
    members = properties if isinstance(properties, Mapping) else {}
    quote = _quote(prompt.inputs)
    fields: dict[str, Any] = {}
    for field in prompt.layout.outputs:
        if field.name in known:
            fields[field.name] = known[field.name]
        else:
            wanted, root = field.schema, field.schema
            if schema and isinstance(members.get(field.name), Mapping):
                wanted, root = members[field.name], schema
            fields[field.name] = draw_value(draws, wanted, field.name, _sentence(field, draws, quote), root)
    return fields


def write_fields(prompt: Prompt, fields: Mapping[str, Any]) -> str:
    """The reply text in the format of the prompt's adapter; fields that are not given are left out."""
    outputs = [field for field in prompt.layout.outputs if field.name in fields]
    if prompt.layout.format == "json":
        return json.dumps({field.name: fields[field.name] for field in outputs}, ensure_ascii=False)
    sections = [f"[[ ## {field.name} ## ]]\n{_text(field, fields[field.name])}" for field in outputs]
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def plain_answer(question: str, draws: Draws) -> str:
    """The answer to a prompt that is not DSPy's."""
    return _SENTENCES[draws.below(len(_SENTENCES))].format(
        quote=_shorten(question) or "nothing", word=(chosen := word(draws)), Word=chosen.capitalize()
    )


def schema_answer(schema: Mapping[str, Any], draws: Draws) -> str:
    """The answer to a prompt that is not DSPy's, but names a JSON schema."""
    return json.dumps(draw_value(draws, schema, "", word(draws), schema), ensure_ascii=False)


def format_schema(response_format: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The JSON schema of an OpenAI `response_format`, or of the gateway's own spelling of it."""
    if not response_format or response_format.get("type") != "json_schema":
        return None
    holder = response_format.get("json_schema", response_format)
    schema = holder.get("schema") if isinstance(holder, Mapping) else None
    return schema if isinstance(schema, Mapping) else None


def _text(field: PromptField, value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and field.plain:
        return value
    return json.dumps(value, ensure_ascii=False) if not field.plain else str(value)


def _sentence(field: PromptField, draws: Draws, quote: str) -> str:
    if field.name in {"reasoning", "rationale"}:
        return f'The input says "{quote}". That points to {word(draws)}, so this is what the answer follows.'
    chosen = word(draws)
    return _SENTENCES[draws.below(len(_SENTENCES))].format(quote=quote, word=chosen, Word=chosen.capitalize())


def _quote(inputs: Mapping[str, str]) -> str:
    return _shorten(next(iter(inputs.values()), "")) or "nothing"


def _shorten(text: str) -> str:
    """One line without quotes, braces or section markers, so that a quoted input can't end a field."""
    flat = " ".join(text[: _QUOTED * 4].replace("[[ ##", "").replace("## ]]", "").replace('"', "'").split())
    return flat if len(flat) <= _QUOTED else flat[: _QUOTED - 3].rstrip() + "..."
