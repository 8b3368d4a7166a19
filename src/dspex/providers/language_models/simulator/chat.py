"""Chat completions on the wire of an OpenAI-compatible server: reading the request, writing the reply."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from dspex.gateway.records import Message, Role, Usage
from dspex.kit.errors import Invalid, Problem
from dspex.providers.language_models.simulator.engine import Answer, Outcome, SimulatedCall

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
}
_MOST_CHOICES = 128
_CHUNK = 4


def read_call(document: Mapping[str, Any]) -> SimulatedCall:
    """Raises Invalid with every bad member. `rollout_id` is an extension that tells samples apart."""
    problems: list[Problem] = []
    messages = document.get("messages")
    read: list[Message] = []
    if not isinstance(messages, list) or not messages:
        problems.append(Problem("/messages", "required", "must be a list of at least one message"))
    else:
        for position, message in enumerate(messages):
            role = _ROLES.get(str(message.get("role"))) if isinstance(message, dict) else None
            text = _text(message.get("content")) if role else None
            if role is None or text is None:
                problems.append(
                    Problem(f"/messages/{position}", "message", "needs a known role and text content")
                )
            else:
                read.append(Message(role, text))
    max_tokens = document.get("max_completion_tokens")
    if max_tokens is None:
        max_tokens = document.get("max_tokens")
    choices = document.get("n")
    choices = 1 if choices is None else choices
    numbers = {"max_tokens": max_tokens, "n": choices, **{k: document.get(k) for k in ("seed", "rollout_id")}}
    for name, value in numbers.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            problems.append(Problem(f"/{name}", "type", "must be a whole number"))
    if type(choices) is int and not 1 <= choices <= _MOST_CHOICES:
        problems.append(Problem("/n", "range", f"must be from 1 to {_MOST_CHOICES}"))
    if type(max_tokens) is int and max_tokens < 1:
        problems.append(Problem("/max_tokens", "range", "must be at least 1"))
    temperature = document.get("temperature")
    if temperature is not None and type(temperature) not in {int, float}:
        problems.append(Problem("/temperature", "type", "must be a number"))
    response_format = document.get("response_format")
    if response_format is not None and not isinstance(response_format, dict):
        problems.append(Problem("/response_format", "type", "must be an object"))
    if problems:
        listed = "; ".join(f"{problem.pointer} {problem.message}" for problem in problems)
        raise Invalid(
            f"the chat request is not valid: {listed}", code="chat_request_invalid", problems=problems
        )
    return SimulatedCall(
        messages=tuple(read),
        seed=numbers["seed"],
        rollout_id=numbers["rollout_id"],
        temperature=temperature,
        response_format=response_format,
        max_tokens=max_tokens,
        choices=choices,
        model=model if isinstance(model := document.get("model"), str) else None,
    )


def _text(content: object) -> str | None:
    """The text of a message, without parts that are no text; None when the content is malformed."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return None
    return "\n".join(str(part.get("text", "")) for part in content if part.get("type") == "text")


def completion(outcome: Outcome, model: object) -> dict[str, Any]:
    return {
        "id": outcome.id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text},
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(outcome.answers)
        ],
        "usage": _usage(outcome.usage),
        "simulated": True,
    }


def chunks(outcome: Outcome, model: object, *, with_usage: bool) -> list[dict[str, Any]]:
    """A stream's events: per choice its role, its text a token at a time, and its end; then the usage."""
    shared = {
        "id": outcome.id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "simulated": True,
    }
    events: list[dict[str, Any]] = []
    for index, answer in enumerate(outcome.answers):
        for delta in _deltas(answer):
            events.append(shared | {"choices": [{"index": index, "delta": delta, "finish_reason": None}]})
        end = {"index": index, "delta": {}, "finish_reason": answer.finish_reason}
        events.append(shared | {"choices": [end]})
    if with_usage:
        events.append(shared | {"choices": [], "usage": _usage(outcome.usage)})
    return events


def pieces(text: str) -> list[str]:
    """A text a token at a time."""
    return [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]


def _deltas(answer: Answer) -> Sequence[dict[str, str]]:
    return [
        {"role": "assistant", "content": ""},
        *({"content": piece} for piece in pieces(answer.text)),
    ]


def _usage(usage: Usage) -> dict[str, int | None]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
