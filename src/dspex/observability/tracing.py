"""Traces: every request gets its place in one, and finished work becomes spans."""

from collections.abc import Mapping
from typing import Protocol

import structlog

from dspex.executions.facts import ExecutionFinished
from dspex.gateway.facts import LanguageModelCalled
from dspex.kit.facts import Facts
from dspex.kit.tracing import TraceContext, new_span_id, new_trace_id, parse_traceparent
from dspex.observability import spans
from dspex.observability.facts import RequestFinished
from dspex.observability.spans import Span

log = structlog.get_logger(__name__)
_LARGEST = 2**64


class SpanSink(Protocol):
    def put(self, span: Span) -> None:
        """Takes a finished span. Neither waits nor raises; drops spans when there are too many."""
        ...


class Sampler:
    """Which traces are kept, by OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG.

    Names without "parentbased_" overrule the caller's decision; unknown ones mean parentbased_always_on.
    """

    def __init__(self, name: str = "parentbased_always_on", argument: str = "") -> None:
        kind = name.strip().lower() or "parentbased_always_on"
        self._parent_decides = kind.startswith("parentbased_")
        kind = kind.removeprefix("parentbased_")
        if kind not in ("always_on", "always_off", "traceidratio"):
            log.warning("sampler_unknown", name=name[:100], used="parentbased_always_on")
            self._parent_decides, kind = True, "always_on"
        share = {"always_on": 1.0, "always_off": 0.0}.get(kind)
        self._below = int((_share(argument) if share is None else share) * _LARGEST)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Sampler":
        return cls(environ.get("OTEL_TRACES_SAMPLER", ""), environ.get("OTEL_TRACES_SAMPLER_ARG", ""))

    def sampled(self, trace_id: str, parent: TraceContext | None) -> bool:
        if parent is not None and self._parent_decides:
            return parent.sampled
        return int(trace_id[16:], 16) < self._below


def _share(argument: str) -> float:
    try:
        share = float(argument or 1.0)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        log.warning("sampler_argument_unknown", argument=argument[:100], used=1.0)
        return 1.0
    return share


class Tracer:
    """Subscribes to what ends; a span is known by its ids from the start, so each is put by itself."""

    def __init__(self, facts: Facts, sink: SpanSink, sampler: Sampler, *, content: bool) -> None:
        self._sink = sink
        self._sampler = sampler
        self._content = content
        facts.subscribe(RequestFinished, self._request)
        facts.subscribe(ExecutionFinished, self._execution)
        facts.subscribe(LanguageModelCalled, self._call)

    def begin(self, traceparent: str | None) -> TraceContext:
        """The span of a request: below the caller's, or the root of a new trace."""
        parent = None if traceparent is None else parse_traceparent(traceparent)
        trace_id = new_trace_id() if parent is None else parent.trace_id
        sampled = self._sampler.sampled(trace_id, parent)
        return TraceContext(trace_id, new_span_id(), sampled, None if parent is None else parent.span_id)

    def _request(self, fact: RequestFinished) -> None:
        if fact.trace is not None and fact.trace.sampled:
            self._sink.put(spans.of_request(fact, fact.trace))

    def _execution(self, fact: ExecutionFinished) -> None:
        if fact.trace is not None and fact.trace.sampled:
            self._sink.put(spans.of_execution(fact, fact.trace, content=self._content))

    def _call(self, fact: LanguageModelCalled) -> None:
        above = fact.context.trace
        if above is not None and above.sampled:
            # What the cache answered was no attempt and has no span of its own yet.
            self._sink.put(spans.of_call(fact, fact.trace or above.child(), content=self._content))
