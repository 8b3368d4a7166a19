"""When somebody should be told, and who."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from dspex.configuration.models import ApiBase

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


@dataclass(frozen=True, slots=True)
class AlertThresholds:
    """A program's own; None: the node's. See AlertSettings."""

    __pydantic_config__ = ConfigDict(defer_build=True, extra="forbid")

    slow_execution_s: Seconds | None = None
    slow_pool_call_s: Seconds | None = None
    error_rate: Share | None = None
    error_rate_executions: Count | None = None
    long_optimization_s: Seconds | None = None


class WebhookSettings(BaseModel):
    """Where alerts are posted. `secret_env` names the variable of the signing secret, never the secret.

    Private addresses are refused unless `allow_private`.
    """

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    url: ApiBase
    secret_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    allow_private: bool = False


class AlertSettings(BaseModel):
    """What is too much: an execution slower than `slow_execution_s`, one in a pool that took longer than

    `slow_pool_call_s` without waiting for a worker and its models, more than `error_rate` of all that ended in
    `window_s` when there were `error_rate_executions` at least, an optimization that runs for longer than
    `long_optimization_s`. What lasts is told again after `remind_s`.
    """

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    enabled: bool = True
    slow_execution_s: Seconds = 5.0
    slow_pool_call_s: Seconds = 1.0
    error_rate: Share = 0.1
    error_rate_executions: Count = 10
    long_optimization_s: Seconds = 300.0
    window_s: Annotated[float, Field(ge=10, le=86_400)] = 300.0
    remind_s: Annotated[float, Field(ge=60, le=7 * 86_400)] = 3600.0
    webhooks: tuple[WebhookSettings, ...] = ()
