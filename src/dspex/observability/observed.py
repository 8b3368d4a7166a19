"""What interfaces see of observability."""

from dataclasses import dataclass

from dspex.kit.facts import Facts
from dspex.observability.alerts import Alerts
from dspex.observability.metrics import Metrics
from dspex.observability.tracing import Tracer


@dataclass(frozen=True, slots=True)
class Observed:
    """`facts` is where an interface says what it did; `tracer` is None while nothing is traced."""

    facts: Facts
    metrics: Metrics
    alerts: Alerts
    tracer: Tracer | None = None
