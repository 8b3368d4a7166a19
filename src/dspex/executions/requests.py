"""What callers ask for, and how much of it they may."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from dspex.access.records import Principal
from dspex.configuration.caching import CachePolicy
from dspex.executions.events import Listener
from dspex.executions.ports import Keeper
from dspex.gateway.records import Lane
from dspex.kit.tracing import TraceContext


class Bounds(Struct, frozen=True):
    """Sizes in bytes of JSON; `timeout_s` is the longest any request may take."""

    input_bytes: int
    output_bytes: int
    timeout_s: float
    in_flight: int


class PredictionRequest(Struct, frozen=True):
    """What a caller asks for, unchecked. `size` is an upper bound of the inputs' size in bytes of JSON.

    `timeout_s` is what the caller allows, `left_s` what is left of the time limit when some has passed before.
    `cache` wins over the program's policy; `trace` is the span that the execution happens in. `listener` is told
    what happens meanwhile; with one, the execution is on record while it runs. What came of it goes to `keeper` instead
    of the recorder; whoever has one waits out rate limits by itself.
    """

    principal: Principal
    request_id: str
    inputs: Mapping[str, Any]
    size: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    left_s: float | None = None
    execution_id: str | None = None
    cache: CachePolicy | None = None
    trace: TraceContext | None = None
    listener: Listener | None = None
    lane: Lane = "interactive"
    keeper: Keeper | None = None

    @property
    def project(self) -> str:
        return self.principal.project
