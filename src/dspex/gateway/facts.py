"""What the gateway announces."""

from typing import Literal

from msgspec import Struct

from dspex.gateway.breaker import State
from dspex.gateway.records import (
    CacheLevel,
    CallContext,
    EmbeddingReply,
    EmbeddingRequest,
    LanguageModelCall,
    LanguageModelReply,
    LanguageModelRequest,
)
from dspex.kit.tracing import TraceContext


class LanguageModelCalled(Struct, frozen=True):
    """One attempt to reach a model has ended: answered, failed or cancelled (`call.error` says which).

    `trace` is the attempt's span while requests are traced.
    """

    context: CallContext
    call: LanguageModelCall
    request: LanguageModelRequest | EmbeddingRequest | None = None
    reply: LanguageModelReply | EmbeddingReply | None = None
    trace: TraceContext | None = None


class BreakerChanged(Struct, frozen=True):
    """A model's breaker went from one state to another, as this node sees it.

    `by` is "calls", "another node" or the operator; `reason` is a sentence for people.
    """

    model: str
    before: State
    after: State
    reason: str
    by: str


CacheKind = Literal["reply", "prediction", "embedding"]
CacheOutcome = Literal["hit", "miss", "stale", "write", "discard"]


class CacheLooked(Struct, frozen=True):
    """A cache was asked or changed. `level` says where the answer was, `flight` that an identical call made it.

    A stale answer is announced as such after the miss that came first. `count` is of entries: texts to embed are
    looked for together.
    """

    kind: CacheKind
    level: CacheLevel | None
    outcome: CacheOutcome
    project: str
    count: int = 1
