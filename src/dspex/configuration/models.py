"""The model registry of `dspex.yaml`: aliases, where they answer, and which variable holds the key."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from dspex.configuration.resilience import BreakerSettings, LaneSettings, RetrySettings
from dspex.configuration.spending import RateLimit

ModelType = Literal["chat", "embedding"]
MOST_DIMENSIONS = 16_384
# What an embedding model has no use for.
_OF_CHAT = ("temperature", "max_tokens", "options", "fallbacks")
# What shapes an answer. Nothing else is stored with a version: neither keys nor addresses can be among it.
GENERATION_OPTIONS = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "min_p",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "reasoning",
        "reasoning_effort",
        "repetition_penalty",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
    }
)


class Pricing(BaseModel):
    """Own prices in US dollars for a million tokens; they win over the maintained price list.

    What chat models write has a price as well.
    """

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    input_per_million: Annotated[float, Field(ge=0)]
    output_per_million: Annotated[float, Field(ge=0)] | None = None
    cache_read_per_million: Annotated[float, Field(ge=0)] | None = None


def _checked_base(address: str) -> str:
    """Does not quote the address: what is wrong in it may be a key."""
    try:
        parts = urlsplit(address)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        known = False
    if not known or any(one.isspace() or not one.isprintable() for one in address):
        raise PydanticCustomError(
            "api_base", "write an http or https address with a host, and a port up to 65535"
        )
    if "@" in parts.netloc:
        raise PydanticCustomError(
            "api_base", "leave user and password out; `env` names the variable of the key"
        )
    if parts.query or parts.fragment or address.endswith(("?", "#")):
        raise PydanticCustomError("api_base", "leave out what begins with ? or #")
    return address


ApiBase = Annotated[str, AfterValidator(_checked_base)]


class EmbeddingSettings(BaseModel):
    """How an embedding model is asked: at most so many texts and bytes of text in a request to the provider.

    `dimensions` are those of requests that name none; None: as many as the model has. `encoding` is that of the
    provider's answers: base64 is a quarter of the size, float is understood everywhere.
    """

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    dimensions: Annotated[int, Field(ge=1, le=MOST_DIMENSIONS)] | None = None
    batch_texts: Annotated[int, Field(ge=1, le=2048)] = 256
    batch_bytes: Annotated[int, Field(ge=1024, le=16 * 1024**2)] = 512 * 1024
    encoding: Literal["base64", "float"] = "base64"


class ModelSettings(BaseModel):
    """One entry of `models.registry`. `env` names the environment variable with the API key, never the key.

    `model` is DSPy's spelling, "provider/name"; "simulator/..." is the built-in simulator.
    `options` are further LM options as `dspy.LM` takes them (top_p, stop, seed, ...): GENERATION_OPTIONS only.
    `timeout_s` bounds one attempt. `fallbacks` are aliases that are asked in turn when this model can't answer; an
    embedding model has none, since another one's vectors mean something else.
    """

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, protected_namespaces=())

    model: Annotated[str, Field(min_length=1, max_length=300)]
    model_type: ModelType = "chat"
    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    api_base: ApiBase | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()
    retries: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    lanes: LaneSettings = LaneSettings()
    rate_limit: RateLimit = RateLimit()
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 1024
    pricing: Pricing | None = None
    embedding: EmbeddingSettings = EmbeddingSettings()

    @model_validator(mode="after")
    def _of_its_type(self) -> Self:
        if self.model_type == "chat":
            if self.embedding != EmbeddingSettings():
                raise PydanticCustomError("model_type", "`embedding` goes with `model_type: embedding` only")
            if self.pricing is not None and self.pricing.output_per_million is None:
                raise PydanticCustomError("missing", "write `output_per_million` of `pricing` as well")
            return self
        given = [name for name in _OF_CHAT if getattr(self, name)]
        if given:
            raise PydanticCustomError(
                "model_type", "an embedding model takes no {names}; leave it out", {"names": ", ".join(given)}
            )
        return self


def unsupported_options(options: Iterable[str]) -> list[str]:
    """The names among these that are no generation options."""
    return [name for name in options if name not in GENERATION_OPTIONS]


def option_advice(name: str) -> str:
    return (
        f"{name[:100]!r} is not an LM option that shapes an answer; the variable of a key goes into `env` and an "
        "address into `api_base` of the model in models.registry"
    )


class ModelRegistry(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    default: str
    registry: dict[str, ModelSettings]
