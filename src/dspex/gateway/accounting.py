"""What a call may take, before it is made; and which calls it came to."""

from collections.abc import Mapping
from typing import Any, Generic, Self

from msgspec.structs import replace

from dspex.gateway.pipeline import Passage, Q, R
from dspex.gateway.records import EmbeddingRequest, LanguageModelCall, LanguageModelRequest, Usage
from dspex.kit import json

# English takes about four bytes a token, code and most other scripts three: rather too many than too few.
BYTES_PER_TOKEN = 3
TOKENS_OF_A_MESSAGE = 8
# Reserved for the reply to a request that sets no max_tokens. It may be longer: the price list knows no model's most,
# and where that is known it is so much (64 000 and up) that a small budget would have no call.
OUTPUT_TOKENS = 4096
# Bytes that an image counts at most: 50 000 tokens, more than any provider counts for one.
IMAGE_BYTES = 150_000
# What lm15 adds to max_tokens for models of Anthropic that think by a budget: those count both together.
THINKING_TOKENS = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 24576,
    "max": 32768,
}


def estimate(request: LanguageModelRequest | EmbeddingRequest) -> Usage:
    """The prompt's tokens, by its size, and the most that the reply may have; of embeddings the texts' tokens."""
    if isinstance(request, EmbeddingRequest):
        texts = -(-sum(map(_bytes, request.texts)) // BYTES_PER_TOKEN) + len(request.texts)
        return Usage(texts, 0, texts)
    size = sum(_bytes(message.content) for message in request.messages)
    for part in (request.options.response_format, request.options.extensions):
        if part:
            size += len(json.dumps(part))
    tokens = TOKENS_OF_A_MESSAGE * len(request.messages)
    prompt = -(-max(size, _bytes_of(request.canonical)) // BYTES_PER_TOKEN) + tokens
    reply = _reply(request)
    return Usage(prompt, reply, prompt + reply)


def _reply(request: LanguageModelRequest) -> int:
    """The most tokens it may have, thinking included."""
    options = request.options
    if request.canonical is None:
        most, effort, thinking = options.max_tokens, options.reasoning_effort, None
    else:
        config = request.canonical.get("config") or {}
        reasoning = config.get("reasoning") or {}
        most, effort = config.get("max_tokens"), reasoning.get("effort")
        thinking = reasoning.get("thinking_budget", reasoning.get("budget"))
    if thinking is None and request.dialect.name == "anthropic":
        thinking = THINKING_TOKENS.get(effort or "")
    return (most or OUTPUT_TOKENS) + (thinking or 0)


def _bytes_of(canonical: Mapping[str, Any] | None) -> int:
    """All of it counts: tools and schemas are read by the model as well."""
    if canonical is None:
        return 0
    size = len(json.dumps(canonical))
    waiting: list[Any] = [canonical.get("messages"), canonical.get("system")]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, Mapping):
            waiting.extend((one.get("content"), one.get("parts")))
            data = one.get("data")
            if one.get("type") == "image" and isinstance(data, str):
                size -= max(len(data) - IMAGE_BYTES, 0)
    return size


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


class _OfOneCall(list[LanguageModelCall]):
    """A list that only one call appends to."""


class CallsApart(Generic[Q, R]):
    """Lets a step see what its call came to, also when other calls of the execution run at the same time.

    The call is to proceed with `passage`, whose `context.calls` are its own; on leaving they are appended to the
    given ones.
    """

    __slots__ = ("_before", "_given", "_own", "passage")

    def __init__(self, passage: Passage[Q, R]) -> None:
        self.passage = passage
        self._given = self._own = passage.context.calls
        if type(self._own) is not _OfOneCall:
            self._own = _OfOneCall()
            self.passage = replace(passage, context=replace(passage.context, calls=self._own))
        self._before = len(self._own)

    @property
    def calls(self) -> list[LanguageModelCall]:
        """The attempts made since then."""
        return self._own[self._before :]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not self._given:
            self._given.extend(self._own)


def given_up(call: LanguageModelCall) -> bool:
    """Whether the model was asked, but its answer not waited for: it may go on, and be paid for."""
    return call.error is not None and call.error["kind"] in ("cancelled", "timeout")
