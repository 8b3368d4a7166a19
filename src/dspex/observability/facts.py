"""What the observability room announces, and what is told to it of requests."""

from datetime import datetime

from msgspec import Struct

from dspex.kit.tracing import TraceContext
from dspex.observability.records import Alert


class RequestFinished(Struct, frozen=True):
    """An HTTP request is over. `route` is the path's template; 499 is a caller that went away."""

    method: str
    route: str
    status: int
    started_at: datetime
    duration_s: float
    request_id: str
    trace: TraceContext | None = None


class AlertRaised(Struct, frozen=True):
    """Something is wrong that was not before; with `reminder` it still is."""

    alert: Alert
    reminder: bool = False


class AlertResolved(Struct, frozen=True):
    """It is no longer wrong."""

    alert: Alert
