"""The model registry of `dspex.yaml`: aliases, where they answer, and which variable holds the key."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Pricing(BaseModel):
    """Own prices in US dollars for a million tokens; they win over the maintained price list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_per_million: Annotated[float, Field(ge=0)]
    output_per_million: Annotated[float, Field(ge=0)]
    cache_read_per_million: Annotated[float, Field(ge=0)] | None = None


class ModelSettings(BaseModel):
    """One entry of `models.registry`. `env` names the environment variable with the API key, never the key.

    `model` is DSPy's spelling, "provider/name"; "simulator/..." is the built-in simulator.
    `options` are further LM options as `dspy.LM` takes them (top_p, stop, seed, ...).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Annotated[str, Field(min_length=1, max_length=300)]
    model_type: Literal["chat"] = "chat"
    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    api_base: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 1024
    pricing: Pricing | None = None


class ModelRegistry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    default: str
    registry: dict[str, ModelSettings]
