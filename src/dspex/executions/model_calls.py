"""What a worker asks a model, read and checked: it is users' code that speaks."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct, ValidationError, convert, field
from msgspec.structs import replace

from dspex.configuration.models import MOST_DIMENSIONS
from dspex.gateway.records import Message, Options, Tokens
from dspex.kit import json
from dspex.kit.errors import Invalid

# What the gateway decides, and no extension of a request may.
RESERVED = frozenset(
    {
        *("model", "messages", "input", "n", "stream", "stream_options", "tools", "tool_choice"),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "service_tier", "user"),
        *("api_key", "api_base", "base_url", "headers", "extra_headers", "timeout"),
        *("generationConfig", "contents", "systemInstruction", "system", "store", "metadata"),
        *("generation_config", "system_instruction", "cachedContent", "cached_content", "serviceTier"),
        *("models", "best_of", "prompt", "previous_response_id", "conversation"),
    }
)
# Options that say on whose account, and how a provider bills and keeps it.
_NOT_THEIRS: dict[str, Any] = {"service_tier": None, "user_id": None, "store": None}
# A request is written and measured again; what is deeper can't be.
DEEPEST = 100
T = TypeVar("T")


class _Reasoning(Struct, frozen=True):
    """lm15 reads the limit by either name."""

    effort: str | None = None
    thinking_budget: Tokens | None = None
    budget: Tokens | None = None


class _Config(Struct, frozen=True):
    max_tokens: Tokens | None = None
    reasoning: _Reasoning | None = None
    extensions: Mapping[str, Any] | None = None


class _Canonical(Struct, frozen=True):
    """What the node reads of lm15's JSON of a request; the rest is lm15's to read."""

    messages: list[dict[str, Any]]
    config: _Config | None = None


class ModelCall(Struct, frozen=True):
    """`alias` is None where a program made its own `dspy.LM`: `model` says which, as DSPy spells it.

    `metric` says that an optimization's metric asks, and not the program.
    """

    model: str
    alias: str | None = None
    messages: tuple[Message, ...] = ()
    options: Options = field(default_factory=Options)
    rollout_id: int | None = None
    adapter: str | None = None
    step: str | None = None
    metric: bool = False
    canonical: Mapping[str, Any] | None = None


class EmbeddingCall(Struct, frozen=True):
    """`model` as a program's `dspy.Embedder` spells it."""

    model: str
    texts: tuple[str, ...]
    dimensions: Annotated[int, Meta(ge=1, le=MOST_DIMENSIONS)] | None = None
    step: str | None = None
    metric: bool = False


def read_call(asked: Any) -> ModelCall:
    """Raises Invalid: bad_model_call for what is no call, extension_not_allowed, file_not_allowed."""
    call = _read(ModelCall, asked)
    _check_writable(call)
    check_extensions(call.options.extensions)
    if call.canonical is not None:
        # What users' code writes there may be no number, or a limit below nothing: that would reserve nothing.
        _read(_Canonical, call.canonical)
    canonical = checked(call.canonical)
    options = replace(call.options, **_NOT_THEIRS)
    if canonical is None:
        return replace(call, options=options)
    # What is sent is what budgets are reserved by.
    config = dict(canonical.get("config") or {})
    options = replace(options, max_tokens=config.get("max_tokens"))
    config = {name: value for name, value in config.items() if name not in _NOT_THEIRS}
    return replace(call, options=options, canonical={**canonical, "config": config})


def read_embedding(asked: Any) -> EmbeddingCall:
    """Raises Invalid (code bad_model_call)."""
    return _read(EmbeddingCall, asked)


def _read(form: type[T], asked: Any) -> T:
    if json.nests_deeper_than(asked, DEEPEST):
        raise Invalid(
            f"A model call of the program nests lists and objects more than {DEEPEST} levels deep; flatten them.",
            code="bad_model_call",
        )
    try:
        return convert(asked, form)
    except (ValidationError, RecursionError) as error:
        raise Invalid(
            f"A model call of the program can't be read: {error}"[:500], code="bad_model_call"
        ) from None


def _check_writable(call: ModelCall) -> None:
    """Raises Invalid (code bad_model_call) where a budget could not measure what is asked."""
    try:
        json.dumps([call.canonical, call.options.extensions, call.options.response_format])
    except ValueError:
        raise Invalid(
            "A model call of the program holds a number that JSON does not have; send finite ones.",
            code="bad_model_call",
        ) from None


def check_extensions(extensions: Mapping[str, Any] | None) -> None:
    """Raises Invalid for members of a provider's request that say what is asked, of whom, or on whose account."""
    refused = sorted(RESERVED & set(extensions or ()))
    if refused:
        raise Invalid(
            f"A model call sets {', '.join(refused)} of the provider's request by itself; leave that to the node.",
            code="extension_not_allowed",
        )


def checked(canonical: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Raises Invalid for a request that would have this node read files, or speak of a provider's stored ones."""
    if canonical is not None:
        check_extensions((canonical.get("config") or {}).get("extensions"))
        waiting: list[Any] = [canonical.get("messages"), canonical.get("system")]
        while waiting:
            one = waiting.pop()
            if isinstance(one, Mapping):
                if one.get("path") is not None or one.get("file_id") is not None:
                    raise Invalid(
                        "A model call names a file; send its content, as `dspy.Image` and its like do by themselves.",
                        code="file_not_allowed",
                    )
                waiting.append(one.get("content"))
                waiting.append(one.get("parts"))
            elif isinstance(one, list):
                waiting.extend(one)
    return canonical
