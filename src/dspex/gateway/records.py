"""What goes to a model and what comes back, in no provider's dialect."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, Literal, Protocol

from msgspec import Meta, Struct, field
from msgspec.structs import fields, replace

from dspex.access.records import Principal
from dspex.configuration.caching import CachePolicy
from dspex.configuration.spending import Budget, RateLimit
from dspex.kit import json
from dspex.kit.tracing import TraceContext
from dspex.kit.waiting import Waiting

Role = Literal["system", "user", "assistant"]
CacheLevel = Literal["memory", "redis", "flight"]
# Of a reply. No model writes nearly as many, and what so many cost can still be counted.
MOST_TOKENS = 10_000_000
Tokens = Annotated[int, Meta(ge=1, le=MOST_TOKENS)]


class Message(Struct, frozen=True):
    """One message of a chat."""

    role: Role
    content: str


class Options(Struct, frozen=True):
    """Generation options; None means "not sent". Names are lm15's canonical ones.

    `response_format` is {"type": "json_object"} or {"type": "json_schema", "name", "schema", "strict"}.
    `extensions` are further members of the provider's request body, passed as they are.
    """

    max_tokens: Tokens | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] = ()
    response_format: Mapping[str, Any] | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None
    user_id: str | None = None
    store: bool | None = None
    extensions: Mapping[str, Any] | None = None


_OPTIONS = tuple(one.name for one in fields(Options))


class FineTuningRequest(Struct, frozen=True):
    """`model` is the provider's name of the model to begin with; examples are {"messages": [...]} as OpenAI has them.

    `options` are members of the provider's request: hyperparameters, method, suffix, seed.
    """

    model: str
    examples: tuple[Mapping[str, Any], ...]
    options: Mapping[str, Any] = field(default_factory=dict)


class Dialect(Struct, frozen=True):
    """How a model's server spells a request, fixed when the program was compiled.

    `name` is lm15's: openai-chat, anthropic, gemini, openai-responses. The two spellings below differ
    between OpenAI-compatible servers.
    """

    name: str = "openai-chat"
    provider: str = "openai"
    model: str = ""
    max_tokens_field: str = "max_tokens"
    instruction_role: str = "system"


# The code of a cap's refusal.
CAPPED = "evaluation_budget"


class Cap(Protocol):
    """A limit of what one piece of work may spend, in US dollars."""

    async def reserve(self, usd: float) -> None:
        """Before a call that costs so much at most. Raises Exhausted (code CAPPED) when it does not fit any more."""
        ...

    async def settle(self, reserved_usd: float, cost_usd: float) -> None:
        """After it, however it ended."""
        ...


class TextSink(Protocol):
    """Takes the text of answers while they come. Neither waits nor raises, and bounds what it keeps."""

    def begin(self, model: str) -> None:
        """A model is asked, by its alias. Text of an attempt before this one is void: that one failed."""
        ...

    def add(self, text: str) -> None:
        """More text of the answer, in pieces of any size. What `complete` returns has the whole."""
        ...


class LanguageModelRequest(Struct, frozen=True):
    """One call. `model` is an alias of the model registry; system messages come first.

    `canonical` is lm15's JSON of the request where messages of plain text can't say it: images, tools, several parts.
    Then it is what is sent, and messages and options are as much of it as can be said without.
    `traceparent` and `sink` are set by the attempt alone, for the client: they are no part of what is asked. With
    a sink, the client asks its provider to stream, where that can be had.
    """

    model: str
    messages: tuple[Message, ...]
    options: Options
    dialect: Dialect
    rollout_id: int | None = None
    canonical: Mapping[str, Any] | None = None
    traceparent: str | None = None
    sink: TextSink | None = None

    @property
    def service_tier(self) -> str | None:
        return self.options.service_tier

    def to_json(self) -> dict[str, Any]:
        """{"messages", "options"}, as a stored trace has them."""
        options = {name: getattr(self.options, name) for name in _OPTIONS}
        return {
            "messages": [{"role": one.role, "content": one.content} for one in self.messages],
            "options": {name: value for name, value in options.items() if value not in (None, ())},
        }


MOST_TEXTS = 2048


class EmbeddingRequest(Struct, frozen=True):
    """1 to MOST_TEXTS texts to embed. `model` is an alias of an embedding model; without `dimensions` a vector has as

    many numbers as the model gives. `dialect` is the gateway's to set; `traceparent` is set by the attempt alone.
    """

    model: str
    texts: tuple[str, ...]
    dimensions: int | None = None
    dialect: Dialect = Dialect("embeddings")
    traceparent: str | None = None

    @property
    def service_tier(self) -> None:
        return None

    def to_json(self) -> dict[str, Any]:
        """{"texts", "dimensions"}, as a stored trace has them: how many texts, which may be a whole corpus."""
        return {"texts": len(self.texts), "dimensions": self.dimensions}


class Spelling(Struct, frozen=True):
    """How a model of the registry is asked: its dialect, and the options that the registry sets for it."""

    dialect: Dialect
    options: Options


MOST_TOKENS = 10**9


class Usage(Struct, frozen=True):
    """Tokens as the provider reported them; None where it did not say.

    `input_tokens` includes tokens read from and written to a prompt cache, `output_tokens` includes
    reasoning, whatever the provider's own way of counting is.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None

    def counted(self) -> list[tuple[str, int]]:
        """The names and counts that the provider reported."""
        counts = zip(_COUNTERS, _counts(self), strict=True)
        return [(name, count) for name, count in counts if count is not None]

    def credible(self) -> "Usage":
        """Counts below zero or above MOST_TOKENS, which no call can have used, become None: not known."""
        absurd = {name: None for name, count in self.counted() if not 0 <= count <= MOST_TOKENS}
        return replace(self, **absurd) if absurd else self


_COUNTERS = tuple(one.name for one in fields(Usage))
_counts = attrgetter(*_COUNTERS)


class LanguageModelReply(Struct, frozen=True):
    """`text` is None when the model produced no text (a refusal or tool calls only).

    `canonical` is lm15's JSON of the reply to a canonical request.
    """

    text: str | None
    model: str
    usage: Usage
    finish_reason: str = "stop"
    id: str | None = None
    refusal: str | None = None
    simulated: bool = False
    canonical: Mapping[str, Any] | None = None


class EmbeddingReply(Struct, frozen=True):
    """A vector for each text, in their order: its numbers as float32, little-endian. All have the same length."""

    vectors: tuple[bytes, ...]
    model: str
    usage: Usage
    simulated: bool = False


class CacheEntry(Struct, frozen=True):
    """`created_at` is the time of the wall clock when the answer was made, in seconds since 1970."""

    created_at: float
    value: bytes
    level: CacheLevel = "memory"


class CacheSize(Struct, frozen=True):
    """What one cache holds in memory, and how its shared level is: off without one."""

    entries: int
    size_bytes: int
    redis: Literal["ok", "away", "off"] = "off"


CACHED = CachePolicy()
Lane = Literal["interactive", "evaluation", "optimization"]
CacheStatus = Literal["miss", "hit", "off"]


class LanguageModelCall(Struct, frozen=True):
    """One line of a trace: one attempt to reach a model, successful or not, or one answer from the cache.

    `model` is the registry's alias, `provider_model` the one that answered, or was asked.
    `latency_ms` is the time spent waiting for the provider; `cost_usd` is None when the price is unknown.
    `fallback_for` is the alias that was asked for when `model` stood in for it.
    An answer from the cache costs nothing and no tokens; `saved_usd` is what it cost when it was made, `age_s` how
    long ago that was. `stale` says that it was too old, and answered because the model could not be reached.
    `step` is the pipeline's step that asked.
    `error` is {"kind", "code", "type", "message"} of a failed or cancelled attempt. Messages are not kept where a
    trace can derive them from the version and the inputs; else `request` is what was asked.
    """

    model: str
    provider_model: str
    dialect: str
    adapter: str | None
    started_at: datetime
    latency_ms: float
    attempt: int
    usage: Usage
    cost_usd: float | None
    reply: str | None = None
    finish_reason: str | None = None
    simulated: bool = False
    error: Mapping[str, str] | None = None
    cache: CacheStatus = "off"
    saved_usd: float = 0.0
    fallback_for: str | None = None
    age_s: float | None = None
    stale: bool = False
    step: str | None = None
    request: LanguageModelRequest | EmbeddingRequest | None = None

    @property
    def embeds(self) -> bool:
        """Whether texts were embedded; such a line has its request, and no reply."""
        return isinstance(self.request, EmbeddingRequest)

    def to_json(self) -> dict[str, Any]:
        """One object for each call of a stored trace; `usage` holds the reported counts only.

        `step` is there in pipelines alone.
        """
        asked = {} if self.request is None else self.request.to_json()
        document = {
            **asked,
            "model": self.model,
            "provider_model": self.provider_model,
            "dialect": self.dialect,
            "adapter": self.adapter,
            "started_at": json.time_text(self.started_at),
            "latency_ms": self.latency_ms,
            "attempt": self.attempt,
            "usage": dict(self.usage.counted()),
            "cost_usd": self.cost_usd,
            "reply": self.reply,
            "finish_reason": self.finish_reason,
            "simulated": self.simulated,
            "error": None if self.error is None else dict(self.error),
            "cache": self.cache,
            "saved_usd": self.saved_usd,
            "fallback_for": self.fallback_for,
            "age_s": self.age_s,
            "stale": self.stale,
        }
        if self.step is not None:
            document["step"] = self.step
        return document


class CallContext(Struct, frozen=True):
    """On whose behalf a call is made. The gateway appends every attempt to `calls`, also failed ones,

    so that a trace can be read when a run fails or is cancelled. `deadline` is on the monotonic clock;
    `adapter` is the DSPy adapter that made the request. `rate_limit` and `budget` are the program's. `cached` are
    the keys under which replies of this run are kept, in case they turn out to be of no use. `trace` is
    the execution's span while requests are traced. `step` is that of a pipeline. Whoever `snoozes` waits out rate
    limits by itself, without holding up anything. `admission` is waited for before each attempt: it does not return
    to a process that has lost what it works on. `cap` limits what the work may cost that the call belongs to. `sink` is
    told the text of attempts while it comes; an answer that nobody was asked for, from a cache or an identical call, is
    not told to it. `waiting` counts how long a program in a pool waits for a worker, and for the gateway, whatever that
    waits for itself; `held` how long calls wait until the `cap` has room for them.
    """

    execution_id: str
    request_id: str
    principal: Principal
    program: str
    session_id: str | None = None
    lane: Lane = "interactive"
    deadline: float | None = None
    adapter: str | None = None
    cache: CachePolicy = CACHED
    rate_limit: RateLimit | None = None
    budget: Budget | None = None
    trace: TraceContext | None = None
    step: str | None = None
    snoozes: bool = False
    admission: Callable[[], Awaitable[None]] | None = None
    cap: Cap | None = None
    sink: TextSink | None = None
    waiting: Waiting | None = None
    held: Waiting | None = None
    calls: list[LanguageModelCall] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)

    @property
    def project(self) -> str:
        return self.principal.project
