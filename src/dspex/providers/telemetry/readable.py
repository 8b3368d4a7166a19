"""Our finished spans as OpenTelemetry's. Importing it loads OpenTelemetry."""

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from dspex.kit.version import VERSION
from dspex.observability.spans import Span

_KINDS = {"server": SpanKind.SERVER, "internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)


class Readable:
    """A span with its own ids and times: nothing was started or stopped at OpenTelemetry."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._scope = InstrumentationScope("dspex", VERSION)

    def __call__(self, span: Span) -> ReadableSpan:
        trace = span.trace
        trace_id = int(trace.trace_id, 16)
        parent = None
        if trace.parent_id is not None:
            # The root's parent is the caller's span, which is elsewhere.
            remote = span.kind == "server"
            parent = SpanContext(trace_id, int(trace.parent_id, 16), is_remote=remote, trace_flags=_SAMPLED)
        return ReadableSpan(
            name=span.name,
            context=SpanContext(trace_id, int(trace.span_id, 16), is_remote=False, trace_flags=_SAMPLED),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=_KINDS[span.kind],
            status=_UNSET if span.error is None else Status(StatusCode.ERROR, span.error or None),
            start_time=span.started_ns,
            end_time=span.ended_ns,
            instrumentation_scope=self._scope,
        )
