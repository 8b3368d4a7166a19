"""What the observability room announces, and what is told to it of requests."""

from dataclasses import dataclass
from datetime import datetime

from dspex.kit.tracing import TraceContext
from dspex.observability.records import Alert


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """An HTTP request is over. `route` is the path's template; 499 is a caller that went away."""

    method: str
    route: str
    status: int
    started_at: datetime
    duration_s: float
    request_id: str
    trace: TraceContext | None = None


@dataclass(frozen=True, slots=True)
class AlertRaised:
    """Something is wrong that was not before; with `reminder` it still is."""

    alert: Alert
    reminder: bool = False


@dataclass(frozen=True, slots=True)
class AlertResolved:
    """It is no longer wrong."""

    alert: Alert
