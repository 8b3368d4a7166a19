"""Cut a rendered request into what is always the same and where the inputs go."""

from collections.abc import Mapping
from typing import Any

from dspy._vendor.lm15.judgments import request_judgments
from dspy.lm15 import Request, TextPart

from dspex.providers.dspy_worker.capture import Captured, Unsupported

PLAIN_OPTIONS = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "response_format",
    "service_tier",
    "user_id",
    "store",
    "extensions",
)
REFUSED_OPTIONS = ("tool_choice", "cache", "logprobs", "probabilities")


def segment(one: Captured, sentinels: Mapping[str, str]) -> dict[str, Any]:
    """{"options", "messages": the static ones, "heads": {input: text before its value}, "tail", "finite_only"}.

    The last message is the heads and values of the inputs present, then the tail. A head carries the
    blank line that parts it from what comes before; `prompts.fill` drops it for the first.
    """
    messages = (
        [{"role": "system", "content": system_of(one.request)}] if one.request.system is not None else []
    )
    messages += [{"role": message.role, "content": _text(message)} for message in one.request.messages]
    for message in messages[:-1]:
        if any(sentinel in message["content"] for sentinel in sentinels.values()):
            raise Unsupported("an input appears outside the last message")
    heads, rest = {}, messages[-1]["content"]
    for name, sentinel in sentinels.items():
        if rest.count(sentinel) != 1:
            raise Unsupported(f"input {name!r} appears {rest.count(sentinel)} times in the prompt, not once")
        heads[name], rest = rest.split(sentinel)
    return {
        "options": options_of(one.request),
        "messages": messages[:-1],
        "heads": heads,
        "tail": rest,
        # lm15 reads such replies itself and refuses numbers that are not finite.
        "finite_only": bool(request_judgments(one.request)),
    }


def options_of(request: Request) -> dict[str, Any]:
    """The options that are set, by lm15's canonical names, as JSON."""
    config = request.config
    for name in REFUSED_OPTIONS:
        if getattr(config, name) is not None:
            raise Unsupported(f"the LM option {name!r} is not supported natively")
    if request.tools:
        raise Unsupported("native tool calling is not supported natively")
    options = {name: getattr(config, name) for name in PLAIN_OPTIONS if getattr(config, name) is not None}
    if config.stop:
        options["stop"] = list(config.stop)
    if config.reasoning is not None:
        if config.reasoning.thinking_budget is not None or config.reasoning.summary is not None:
            raise Unsupported("reasoning budgets and summaries are not supported natively")
        options["reasoning_effort"] = config.reasoning.effort
    return options


def system_of(request: Request) -> str:
    """The system text; empty without one."""
    system = request.system
    if isinstance(system, str):
        return system
    return "".join(part_of(part) for part in system or ())


def _text(message: Any) -> str:
    if len(message.parts) != 1:
        raise Unsupported("a message has several parts; only plain text is native")
    return part_of(message.parts[0])


def part_of(part: Any) -> str:
    """The text of a part. Raises Unsupported for any other."""
    if type(part) is not TextPart:
        raise Unsupported(f"a message has a {type(part).__name__}; only plain text is native")
    return str(part.text)
