"""Where metrics and traces go."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from dspex.configuration.models import ApiBase


class _Section(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)


class MetricsSettings(_Section):
    """An address for GET /metrics alone; without a `port` it is answered where everything is."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None


class TelemetrySettings(_Section):
    """`endpoint` is an OTLP/HTTP collector, such as http://127.0.0.1:4318; the OTEL_ variables say the rest.

    With `content` spans carry inputs, outputs, prompts and replies.
    """

    endpoint: ApiBase | None = None
    content: bool = False
