"""The Chat Completions wire, both ways, without I/O.

Requests are byte for byte those of `lm15.providers.openai_chat`; replies give the text, usage and error
class that DSPy makes of them. Property tests hold both equal.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from dspex.gateway.records import LanguageModelReply, LanguageModelRequest
from dspex.kit.errors import Invalid
from dspex.providers.language_models import openai_chat_errors as failures
from dspex.providers.language_models.openai_chat_replies import read_reply

# Hints to lm15 itself; they never reach a provider.
_RESERVED_EXTENSIONS = frozenset({"prompt_caching", "cache", "compat", "openai_compat", "openai_chat_compat"})
_KEPT = 1024
_fragments: dict[int, tuple[Any, orjson.Fragment]] = {}
_Number = Callable[[float], Any]
_Nested = Callable[[Callable[[Any], Any], Any], Any]


def encode(request: LanguageModelRequest) -> bytes:
    """The request body. Raises Invalid (code not_encodable) for text without a UTF-8 form."""
    try:
        return orjson.dumps(_payload(request, _number, _fragment))
    except (TypeError, UnicodeEncodeError):
        # An integer over 64 bits, or a lone surrogate.
        return _encode_slowly(request)


def decode(status: int, headers: Mapping[str, str], body: bytes, model: str) -> LanguageModelReply:
    """The reply in a response; `model` is the one asked for, when the body names none. Header names any case.

    Raises the LMError of the class DSPy raises: an error status, an error in a 200, no JSON, a wrong shape.
    """
    if status >= 400:
        raise failures.from_status(status, headers, body)
    return read_reply(status, headers, body, model)


def _encode_slowly(request: LanguageModelRequest) -> bytes:
    text = json.dumps(_payload(request, float, _built), separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        code_points = " ".join(f"U+{ord(one):04X}" for one in text[error.start : error.end])
        raise Invalid(
            f"The request holds text that is not valid Unicode (lone surrogate {code_points}), which no "
            "model can receive; repair the inputs.",
            code="not_encodable",
        ) from None


def _number(value: float) -> Any:
    """A float in Python's spelling: orjson writes 1e-05 as 1e-5."""
    return orjson.Fragment(repr(float(value)).encode())


def _fragment(build: Callable[[Any], Any], source: Any) -> Any:
    """`build(source)` as Python's json writes it, once: a program's requests share their options."""
    known = _fragments.get(id(source))
    if known is not None and known[0] is source:
        return known[1]
    fragment = orjson.Fragment(json.dumps(build(source), separators=(",", ":"), ensure_ascii=False).encode())
    if len(_fragments) >= _KEPT:
        _fragments.clear()
    _fragments[id(source)] = (source, fragment)
    return fragment


def _built(build: Callable[[Any], Any], source: Any) -> Any:
    return build(source)


def _itself(value: Any) -> Any:
    return value


def _response_format(form: Mapping[str, Any]) -> dict[str, Any]:
    if form["type"] == "json_object":
        return {"type": "json_object"}
    inner = {"name": form.get("name") or "response", "schema": form["schema"]}
    if "strict" in form:
        inner["strict"] = form["strict"]
    return {"type": "json_schema", "json_schema": inner}


def _payload(request: LanguageModelRequest, number: _Number, nested: _Nested) -> dict[str, Any]:
    options, dialect = request.options, request.dialect
    payload: dict[str, Any] = {
        "model": dialect.model,
        "messages": [
            {"role": dialect.instruction_role if one.role == "system" else one.role, "content": one.content}
            for one in request.messages
            if one.content or one.role != "system"
        ],
    }
    if options.max_tokens is not None:
        payload[dialect.max_tokens_field] = options.max_tokens
    if options.temperature is not None:
        payload["temperature"] = number(options.temperature)
    if options.top_p is not None:
        payload["top_p"] = number(options.top_p)
    if options.seed is not None:
        payload["seed"] = options.seed
    if options.frequency_penalty is not None:
        payload["frequency_penalty"] = number(options.frequency_penalty)
    if options.presence_penalty is not None:
        payload["presence_penalty"] = number(options.presence_penalty)
    if options.stop:
        payload["stop"] = options.stop
    if options.response_format is not None:
        payload["response_format"] = nested(_response_format, options.response_format)
    if options.reasoning_effort is not None:
        payload["reasoning_effort"] = (
            "none" if options.reasoning_effort == "off" else options.reasoning_effort
        )
    if options.service_tier is not None:
        payload["service_tier"] = options.service_tier
    if options.user_id is not None:
        payload["user"] = options.user_id
    if options.store is not None:
        payload["store"] = options.store
    for name, value in (options.extensions or {}).items():
        if name not in _RESERVED_EXTENSIONS:
            payload[name] = nested(_itself, value)
    if request.sink is not None:
        payload["stream"] = True
        payload["stream_options"] = {"include_usage": True}
    return payload
