"""GET /metrics, on plain ASGI: scraping must not load the framework."""

from dspex.interfaces.rest import exchange
from dspex.interfaces.rest.exchange import Receive, Scope, Send
from dspex.kit.errors import Invalid
from dspex.observability.metrics import Metrics

PATH = "/metrics"
NO_STORE = (b"cache-control", b"no-store")


class MetricsPage:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Prometheus's text format, or OpenMetrics for who accepts it. Raises Invalid for another method."""
        if scope["method"] not in ("GET", "HEAD"):
            raise Invalid(f"{PATH} does not take {scope['method']}.", code="method_not_allowed")
        body, content_type = await self._metrics.exposition(exchange.header(scope, b"accept") or "")
        headers = [(b"content-type", content_type.encode()), NO_STORE]
        await exchange.answer(send, 200, b"" if scope["method"] == "HEAD" else body, headers)
