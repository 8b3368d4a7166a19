"""What interfaces see of observability."""

from msgspec import Struct

from dspex.kit.facts import Facts
from dspex.observability.alerts import Alerts
from dspex.observability.metrics import Metrics
from dspex.observability.tracing import Tracer


class Observed(Struct, frozen=True):
    """`facts` is where an interface says what it did; `tracer` is None while nothing is traced."""

    facts: Facts
    metrics: Metrics
    alerts: Alerts
    tracer: Tracer | None = None
