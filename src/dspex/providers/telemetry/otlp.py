"""Spans to an OTLP collector, from a thread of OpenTelemetry's own, which is loaded when that starts."""

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from dspex.kit.errors import Invalid
from dspex.kit.version import VERSION
from dspex.observability.spans import Span

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

log = structlog.get_logger(__name__)
EARLY = 2048
# A collector that does not answer must not hold a stopping node up.
CLOSE_S = 2.0


class OtlpSpans:
    """A `tracing.SpanSink`. Spans that come while OpenTelemetry is being loaded wait, up to `EARLY` of them."""

    def __init__(self, endpoint: str | None, node: str) -> None:
        self._endpoint = endpoint
        self._node = node
        self._early: deque[Span] = deque(maxlen=EARLY)
        self._send: Callable[[Span], None] = self._early.append

    def put(self, span: Span) -> None:
        self._send(span)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Loads in a thread; leaving it sends what is queued, for `CLOSE_S` at most."""
        loading = asyncio.create_task(self._load())
        try:
            yield
        finally:
            processor = await loading
            await closed_within(processor.shutdown, CLOSE_S)

    async def _load(self) -> "BatchSpanProcessor":
        send, processor = await asyncio.to_thread(self._open)
        for span in self._early:
            send(span)
        self._early.clear()
        self._send = send
        return processor

    def _open(self) -> "tuple[Callable[[Span], None], BatchSpanProcessor]":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from dspex.providers.telemetry.readable import Readable

        processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=self._endpoint))
        readable = Readable(resource(self._node))
        return lambda span: processor.on_end(readable(span)), processor


def resource(node: str) -> "Resource":
    """Who we are; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over "dspex"."""
    from opentelemetry.sdk.resources import Resource

    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    ours = {"service.version": VERSION, "service.instance.id": node}
    return Resource.create(ours if named else {"service.name": "dspex", **ours})


def check_installed() -> None:
    """Raises Invalid while the exporter's package is not there."""
    from importlib.util import find_spec

    try:
        found = find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise Invalid(
            "Telemetry is configured, but OpenTelemetry is not installed; run pip install 'dspex[otlp]'.",
            code="otlp_missing",
        )


async def closed_within(close: Callable[[], object], limit_s: float) -> None:
    """Runs it in a thread that does not keep the process alive, and waits for it no longer than that."""
    loop, closed = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            close()
        finally:
            with suppress(RuntimeError):
                # The loop is gone when it took longer.
                loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=run, name="telemetry-closing", daemon=True).start()
    try:
        await asyncio.wait_for(closed.wait(), limit_s)
    except TimeoutError:
        log.warning("telemetry_not_sent", waited_s=limit_s)
