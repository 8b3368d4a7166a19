"""What goes to a model and what comes back, in no provider's dialect."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider reported them; None where it did not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None


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

    `latency_ms` is the time spent waiting for the provider; `cost_usd` is None when the price is unknown.
    `error` is {"kind", "code", "type", "message"} of a failed attempt. Messages are not kept: a trace
    derives them from the version and the inputs.
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


@dataclass(frozen=True, slots=True)
class CallContext:
    """On whose behalf a call is made. The gateway appends every attempt to `calls`, also failed ones,

    so that a trace can be read when a run fails or is cancelled. `deadline` is on the monotonic clock.
    """

    execution_id: str
    request_id: str
    project: str
    lane: Lane = "interactive"
    deadline: float | None = None
    calls: list[LanguageModelCall] = field(default_factory=list)
