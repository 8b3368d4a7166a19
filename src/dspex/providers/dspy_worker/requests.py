"""lm15's requests and replies as what goes over the stream, and back."""

from collections.abc import Mapping
from typing import Any

from dspy import lm15
from dspy._vendor.lm15.serde import request_to_dict, response_from_dict
from dspy.lm15 import Message, Request, Response, TextPart, Usage

from dspex.providers.dspy_worker.capture import Unsupported
from dspex.providers.dspy_worker.conversation import CallFailed
from dspex.providers.dspy_worker.segments import options_of, part_of, system_of

# By the names of the node's errors, which are those of DSPy's.
_ERRORS: Mapping[str, type[lm15.LM15Error]] = {
    "ContextWindowExceededError": lm15.ContextLengthError,
    "LMAuthError": lm15.AuthError,
    "LMBillingError": lm15.BillingError,
    "LMRateLimitError": lm15.RateLimitError,
    "LMUnsupportedModelError": lm15.UnsupportedModelError,
    "LMInvalidRequestError": lm15.InvalidRequestError,
    "LMTimeoutError": lm15.TimeoutError,
    "LMServerError": lm15.ServerError,
    "LMUnsupportedFeatureError": lm15.UnsupportedFeatureError,
    "LMConfigurationError": lm15.ConfigurationError,
    "LMTransportError": lm15.TransportError,
}


def request_to_json(request: Request) -> dict[str, Any]:
    """{"messages", "options"}; with "canonical", lm15's own JSON, where these can't say all of it."""
    try:
        options = options_of(request)
        messages = [] if request.system is None else [{"role": "system", "content": system_of(request)}]
        messages += [{"role": one.role, "content": _text(one)} for one in request.messages]
    except Unsupported:
        return {
            "canonical": request_to_dict(request),
            "messages": [{"role": "user", "content": _shown(one)} for one in request.messages],
            "options": _known_options(request),
        }
    return {"messages": messages, "options": options}


def _shown(message: Any) -> str:
    """What there is of text, for traces and for estimating what it costs."""
    return "\n".join(getattr(part, "text", None) or f"[{part.type}]" for part in message.parts)


def _known_options(request: Request) -> dict[str, Any]:
    config = request.config
    known = {name: getattr(config, name) for name in ("max_tokens", "temperature", "top_p", "seed", "stop")}
    return {name: value for name, value in known.items() if value not in (None, ())}


def response_from_json(reply: Mapping[str, Any]) -> Response:
    """What the node answered, as an engine returns it."""
    if reply.get("canonical") is not None:
        return response_from_dict(reply["canonical"])
    return Response(
        id=reply["id"],
        model=reply["model"],
        message=Message.assistant([TextPart(reply["text"] or "")]),
        finish_reason=reply["finish_reason"],
        usage=Usage(**reply["usage"]),
    )


def error_of(failed: CallFailed) -> lm15.LM15Error:
    """The error that an engine raises; DSPy makes the class of it that its users know."""
    told = failed.error
    made = _ERRORS.get(told["type"], lm15.ProviderError)
    return made(told["message"], retry_after=told.get("retry_after"), status=told.get("status"))


def _text(message: Any) -> str:
    if len(message.parts) != 1 or message.role not in ("user", "assistant"):
        raise Unsupported("more than one part of text")
    return part_of(message.parts[0])
