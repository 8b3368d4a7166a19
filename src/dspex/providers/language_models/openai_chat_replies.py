"""From the body of a successful Chat Completions response to a reply, shape by shape as DSPy reads it."""

import json
import math
from collections.abc import Mapping
from typing import Any

import orjson

from dspex.gateway.errors import LMProviderError, LMUnexpectedError, LMUnsupportedFeatureError
from dspex.gateway.records import LanguageModelReply, Usage
from dspex.providers.language_models.openai_chat_errors import failure, from_envelope, retry_after

_FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_call",
    "function_call": "tool_call",
    "content_filter": "content_filter",
}


class _Unexpected(Exception):
    """The body is JSON but no chat completion; the message says what is wrong with it."""


def read_reply(status: int, headers: Mapping[str, str], body: bytes, model: str) -> LanguageModelReply:
    """Raises LMProviderError for what is not JSON, LMUnexpectedError for another shape than a completion's,

    LMUnsupportedFeatureError for several choices, and the error that the body itself reports.
    """
    try:
        try:
            return _read(orjson.loads(body), status, headers, model, exact=False)
        except (orjson.JSONDecodeError, _Inexact):
            # Python's json takes more (NaN, lone surrogates, UTF-16) and keeps large integers.
            data = json.loads(body)
        reply = _read(data, status, headers, model, exact=True)
        if not _is_strict(data):
            raise _Unexpected("it holds NaN or an infinite number")
        return reply
    except _Unexpected as problem:
        raise LMUnexpectedError(
            f"The answer is no chat completion: {problem}. Check api_base in models.registry. "
            f"It starts: {_start(body)}",
            status=status,
        ) from None
    except RecursionError:
        raise LMUnexpectedError("The answer is nested too deeply to be read.", status=status) from None
    except ValueError:
        raise failure(LMProviderError, f"no JSON but {_start(body)}", status, retry_after(headers)) from None


def read_document(data: Any, status: int, headers: Mapping[str, str], model: str) -> LanguageModelReply:
    """The reply in a completion that is JSON already. Raises LMUnexpectedError for another shape than its."""
    try:
        return _read(data, status, headers, model, exact=True)
    except _Unexpected as problem:
        raise LMUnexpectedError(
            f"The answer is no chat completion: {problem}. Check api_base in models.registry.", status=status
        ) from None


class _Inexact(Exception):
    """orjson made a float of a number that matters."""


def _read(
    data: Any, status: int, headers: Mapping[str, str], model: str, *, exact: bool
) -> LanguageModelReply:
    if not isinstance(data, dict):
        raise _Unexpected(f"it is a JSON {_kind(data)}")
    error = data.get("error")
    if isinstance(error, dict):
        raise from_envelope(error, status, headers)
    choice = _choice(data.get("choices") or [])
    message = choice.get("message")
    if not isinstance(message, dict):
        message = {}
    refusal = message.get("refusal")
    calls = _tool_calls(message.get("tool_calls") or ())
    text = _text(message.get("content"))
    if text is None and not (
        message.get("reasoning_content") or message.get("reasoning") or refusal or calls
    ):
        text = ""
    named, id_ = data.get("model") or model, data.get("id")
    if not exact and (type(named) is float or type(id_) is float):
        raise _Inexact
    finish_reason = _FINISH_REASONS.get(str(choice.get("finish_reason")), "stop")
    return LanguageModelReply(
        text=text,
        model=str(named),
        usage=_usage(data.get("usage") or {}, exact).credible(),
        finish_reason="tool_call" if calls else finish_reason,
        id=str(id_) if id_ else None,
        refusal=str(refusal) if refusal else None,
        simulated=data.get("simulated") is True,
    )


def _choice(choices: Any) -> Mapping[str, Any]:
    if not isinstance(choices, list):
        raise _Unexpected("`choices` is not an array")
    if len(choices) > 1:
        raise LMUnsupportedFeatureError(
            f"The answer has {len(choices)} choices where one was asked for; don't set `n` for this model."
        )
    return choices[0] if choices and isinstance(choices[0], dict) else {}


def _text(content: Any) -> str | None:
    """None when there is no text part at all."""
    if isinstance(content, str):
        return content or None
    if not isinstance(content, list):
        return None
    texts = [
        str(one.get("text") or "") for one in content if isinstance(one, dict) and one.get("type") == "text"
    ]
    return "".join(texts) if texts else None


def _tool_calls(calls: Any) -> int:
    """How many function calls there are."""
    if not isinstance(calls, list | tuple | dict | str):
        raise _Unexpected("`tool_calls` is not an array")
    found = 0
    for call in calls:
        if not isinstance(call, dict) or (call.get("type") or "function") != "function":
            continue
        function = call.get("function")
        if not isinstance(function, dict) or not function.get("name"):
            raise LMProviderError("The model called a tool without naming it; try again.")
        arguments = function.get("arguments")
        if isinstance(arguments, str) and not _is_strict(_parsed(arguments)):
            raise _Unexpected("a tool call's arguments hold NaN or an infinite number")
        found += 1
    return found


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return None


def _usage(usage: Any, exact: bool) -> Usage:
    if not isinstance(usage, dict):
        raise _Unexpected("`usage` is not an object")
    inputs = usage.get("prompt_tokens_details") or {}
    outputs = usage.get("completion_tokens_details") or {}
    if not isinstance(inputs, dict) or not isinstance(outputs, dict):
        raise _Unexpected("the details of `usage` are not objects")
    input_tokens = _count(usage, "prompt_tokens", exact)
    output_tokens = _count(usage, "completion_tokens", exact)
    total_tokens = _count(usage, "total_tokens", exact)
    if total_tokens is None and input_tokens is not None and output_tokens is not None:
        total_tokens = input_tokens + output_tokens
    for details in (inputs, outputs):
        _count(details, "audio_tokens", exact)
    cached = _count(inputs, "cached_tokens", exact)
    if cached is None and type(usage.get("cached_tokens")) is int:
        # Some servers report it beside the totals.
        cached = max(usage["cached_tokens"], 0)
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=total_tokens,
        reasoning_tokens=_count(outputs, "reasoning_tokens", exact),
        cache_read_tokens=cached,
        cache_write_tokens=_count(inputs, "cache_write_tokens", exact),
    )


def _count(usage: Mapping[str, Any], name: str, exact: bool) -> int | None:
    count = usage.get(name)
    if count is None or (type(count) is int and count >= 0):
        return count
    if type(count) is float and not exact:
        raise _Inexact
    if type(count) is float and count.is_integer() and count >= 0:
        return int(count)
    raise _Unexpected(f"`usage` has no count for {name} but {str(count)[:50]!r}")


def _is_strict(data: Any) -> bool:
    """Whether every number is finite; not recursive, for hostile depths."""
    rest = [data]
    while rest:
        one = rest.pop()
        if isinstance(one, float) and not math.isfinite(one):
            return False
        if isinstance(one, list):
            rest.extend(one)
        elif isinstance(one, dict):
            rest.extend(one.values())
    return True


def _start(body: bytes) -> str:
    return repr(body[:200].decode(errors="replace")) if body else "nothing"


def _kind(data: Any) -> str:
    return {list: "array", str: "string", bool: "boolean", type(None): "null"}.get(type(data), "number")
