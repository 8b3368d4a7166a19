"""What a call passes on its way to a model: steps, each around the next."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from dspex.configuration.models import ModelSettings
from dspex.gateway.records import (
    CallContext,
    EmbeddingReply,
    EmbeddingRequest,
    LanguageModelReply,
    LanguageModelRequest,
)

# A completion or an embedding. Steps that care about neither stand around both.
Q = TypeVar("Q", bound=LanguageModelRequest | EmbeddingRequest)
R = TypeVar("R", bound=LanguageModelReply | EmbeddingReply)


class Passage(Struct, Generic[Q, R], frozen=True):
    """One request on its way. `request.model` is the alias that is asked; `settings` and `ask` are that alias's.

    `attempt` counts from 1 over retries and fallbacks. `resolve` finds the way to another model;
    `fallback_for` is the alias that was asked for when this is the way to a fallback. Calls with the same `key` may
    share an answer.
    """

    request: Q
    context: CallContext
    settings: ModelSettings
    ask: Callable[[Q], Awaitable[R]]
    resolve: "Callable[[Q, CallContext], Passage[Q, R]]"
    attempt: int = 1
    fallback_for: str | None = None
    key: str | None = None


Proceed = Callable[[Passage[Q, R]], Awaitable[R]]
Completion = Passage[LanguageModelRequest, LanguageModelReply]
ProceedCompletion = Proceed[LanguageModelRequest, LanguageModelReply]
Embedding = Passage[EmbeddingRequest, EmbeddingReply]
ProceedEmbedding = Proceed[EmbeddingRequest, EmbeddingReply]


class Step(Protocol[Q, R]):
    async def __call__(self, passage: Passage[Q, R], *, proceed: Proceed[Q, R]) -> R:
        """Answers by itself, fails, or lets the call proceed: with the same passage or a changed one."""
        ...


CompletionStep = Step[LanguageModelRequest, LanguageModelReply]
EmbeddingStep = Step[EmbeddingRequest, EmbeddingReply]


def compose(steps: Sequence[Step[Q, R]], last: Proceed[Q, R]) -> Proceed[Q, R]:
    """The steps as one: the first is the outermost."""
    for step in reversed(steps):
        last = partial(step, proceed=last)
    return last
