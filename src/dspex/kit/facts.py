"""Facts: what rooms announce. Metrics, traces, logs and alerts subscribe; no room calls them."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

log = structlog.get_logger(__name__)
F = TypeVar("F")


class Facts:
    """A synchronous bus keyed by fact type. A failing subscriber is logged and never harms the publisher."""

    def __init__(self) -> None:
        self._subscribers: defaultdict[type[Any], list[Callable[[Any], None]]] = defaultdict(list)

    def subscribe(self, fact_type: type[F], handler: Callable[[F], None]) -> None:
        self._subscribers[fact_type].append(handler)

    def announce(self, fact: object) -> None:
        for handler in self._subscribers.get(type(fact), ()):
            try:
                handler(fact)
            except Exception:
                log.exception("fact_subscriber_failed", fact=type(fact).__name__)
