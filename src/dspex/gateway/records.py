"""What goes to a model and what comes back, in no provider's dialect."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Options:
    """Generation options; None means "not sent". Names are lm15's canonical ones.

    `response_format` is {"type": "json_object"} or {"type": "json_schema", "name", "schema", "strict"}.
    `extensions` are further members of the provider's request body, passed as they are.
    """

    max_tokens: int | None = None
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


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a model's server spells a request, fixed when the program was compiled.

    `name` is lm15's: openai-chat, anthropic, gemini, openai-responses. The two spellings below differ
    between OpenAI-compatible servers.
    """

    name: str = "openai-chat"
    provider: str = "openai"
    model: str = ""
    max_tokens_field: str = "max_tokens"
    instruction_role: str = "system"


@dataclass(frozen=True, slots=True)
class LanguageModelRequest:
    """One call. `model` is an alias of the model registry; system messages come first."""

    model: str
    messages: tuple[Message, ...]
    options: Options
    dialect: Dialect
    rollout_id: int | None = None


MOST_TOKENS = 10**9


@dataclass(frozen=True, slots=True)
class Usage:
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

    def counted(self) -> Iterator[tuple[str, int]]:
        """The names and counts that the provider reported."""
        for name in _COUNTERS:
            count = getattr(self, name)
            if count is not None:
                yield name, count

    def credible(self) -> "Usage":
        """Counts below zero or above MOST_TOKENS, which no call can have used, become None: not known."""
        absurd = {name: None for name, count in self.counted() if not 0 <= count <= MOST_TOKENS}
        return replace(self, **absurd) if absurd else self


_COUNTERS = tuple(one.name for one in fields(Usage))


@dataclass(frozen=True, slots=True)
class LanguageModelReply:
    """`text` is None when the model produced no text (a refusal or tool calls only)."""

    text: str | None
    model: str
    usage: Usage
    finish_reason: str = "stop"
    id: str | None = None
    refusal: str | None = None
    simulated: bool = False


Lane = Literal["interactive", "evaluation", "optimization"]


@dataclass(frozen=True, slots=True)
class LanguageModelCall:
    """One line of a trace: one attempt to reach a model, successful or not.

    `model` is the registry's alias, `provider_model` the one that answered, or was asked.
    `latency_ms` is the time spent waiting for the provider; `cost_usd` is None when the price is unknown.
    `error` is {"kind", "code", "type", "message"} of a failed or cancelled attempt. Messages are not kept:
    a trace derives them from the version and the inputs.
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

    def to_json(self) -> dict[str, Any]:
        """One object for each call of a stored trace; `usage` holds the reported counts only."""
        return {
            "model": self.model,
            "provider_model": self.provider_model,
            "dialect": self.dialect,
            "adapter": self.adapter,
            "started_at": self.started_at.isoformat(),
            "latency_ms": self.latency_ms,
            "attempt": self.attempt,
            "usage": dict(self.usage.counted()),
            "cost_usd": self.cost_usd,
            "reply": self.reply,
            "finish_reason": self.finish_reason,
            "simulated": self.simulated,
            "error": None if self.error is None else dict(self.error),
        }


@dataclass(frozen=True, slots=True)
class CallContext:
    """On whose behalf a call is made. The gateway appends every attempt to `calls`, also failed ones,

    so that a trace can be read when a run fails or is cancelled. `deadline` is on the monotonic clock;
    `adapter` is the DSPy adapter that made the request.
    """

    execution_id: str
    request_id: str
    project: str
    lane: Lane = "interactive"
    deadline: float | None = None
    adapter: str | None = None
    calls: list[LanguageModelCall] = field(default_factory=list)
