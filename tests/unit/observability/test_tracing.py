"""Traces: whose child a request is, which are kept, and what spans say."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.configuration.observing import TelemetrySettings
from dspex.gateway.records import Dialect, EmbeddingReply, EmbeddingRequest, Usage
from dspex.kit.facts import Facts
from dspex.kit.tracing import TraceContext, parse_traceparent
from dspex.observability.facts import RequestFinished
from dspex.observability.spans import Span, of_call
from dspex.observability.tracing import Sampler, Tracer
from dspex.providers.telemetry.addresses import destination
from tests.making import NOON
from tests.unit.observability.given import SECRET_TEXT, UNAVAILABLE, Called, finished

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HERE = TraceContext(TRACE, SPAN, sampled=True)


@dataclass
class Sink:
    spans: list[Span] = field(default_factory=list)

    def put(self, span: Span) -> None:
        self.spans.append(span)


def tracing(content: bool = False, sampler: str = "") -> tuple[Facts, Sink, Tracer]:
    facts, sink = Facts(), Sink()
    return facts, sink, Tracer(facts, sink, Sampler(sampler), content=content)


def test_a_callers_trace_goes_on() -> None:
    _, _, tracer = tracing()
    context = tracer.begin(f"00-{TRACE}-{SPAN}-01")
    assert (context.trace_id, context.parent_id, context.sampled) == (TRACE, SPAN, True)
    child = context.child()
    assert (child.trace_id, child.parent_id) == (TRACE, context.span_id)
    assert child.traceparent == f"00-{TRACE}-{child.span_id}-01"
    assert len({SPAN, context.span_id, child.span_id}) == 3


def test_without_a_caller_a_trace_begins() -> None:
    _, _, tracer = tracing()
    one, other = tracer.begin(None), tracer.begin(None)
    assert one.parent_id is None
    assert one.trace_id != other.trace_id
    assert parse_traceparent(one.traceparent) == TraceContext(one.trace_id, one.span_id, sampled=True)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-0g",
    ],
)
def test_what_is_no_traceparent_is_ignored(header: str) -> None:
    assert parse_traceparent(header) is None


def test_later_versions_may_say_more() -> None:
    assert parse_traceparent(f"01-{TRACE}-{SPAN}-03-more") == HERE


@pytest.mark.parametrize(
    ("name", "argument", "parent", "kept"),
    [
        ("", "", None, True),
        ("", "", False, False),
        ("", "", True, True),
        ("always_on", "", False, True),
        ("always_off", "", True, False),
        ("parentbased_always_off", "", None, False),
        ("parentbased_always_off", "", True, True),
        ("traceidratio", "0", True, False),
        ("traceidratio", "1.0", None, True),
        ("parentbased_traceidratio", "0", True, True),
        ("parentbased_traceidratio", "0", None, False),
        ("traceidratio", "often", None, True),
        ("jaeger_remote", "", None, True),
    ],
)
def test_the_usual_variables_say_which_traces_are_kept(
    name: str, argument: str, parent: bool | None, kept: bool
) -> None:
    sampler = Sampler.of({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument})
    caller = None if parent is None else TraceContext(TRACE, SPAN, parent)
    assert sampler.sampled(TRACE, caller) is kept


def test_a_ratio_keeps_about_that_many() -> None:
    sampler = Sampler("traceidratio", "0.25")
    _, _, tracer = tracing()
    kept = sum(sampler.sampled(tracer.begin(None).trace_id, None) for _ in range(4000))
    assert 800 < kept < 1200


def test_what_is_not_sampled_makes_no_spans() -> None:
    facts, sink, _ = tracing(content=True)
    ignored = TraceContext(TRACE, SPAN, sampled=False)
    facts.announce(RequestFinished("GET", "/", 200, NOON, 0.1, "r1", ignored))
    facts.announce(finished(trace=ignored))
    facts.announce(Called(above=ignored, trace=ignored.child()).fact)
    facts.announce(finished())
    assert sink.spans == []


def test_a_call_says_what_the_conventions_ask_for() -> None:
    facts, sink, _ = tracing()
    facts.announce(Called(above=HERE, trace=(mine := HERE.child())).fact)
    (span,) = sink.spans
    assert (span.name, span.kind, span.trace, span.error) == ("chat gpt-4o-mini", "client", mine, None)
    assert span.ended_ns - span.started_ns == 250_000_000
    assert span.started_ns == int(NOON.timestamp()) * 10**9
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini-2024",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.id": "chatcmpl-1",
        "dspex.model": "main",
        "dspex.attempt": 2,
        "dspex.cache": "miss",
        "dspex.cost_usd": 0.25,
        "dspex.saved_usd": 0.0,
        "dspex.adapter": "chat",
        "dspex.simulated": False,
    }
    assert span.attributes == expected


def test_a_call_for_embeddings_says_what_the_conventions_ask_for_and_no_text() -> None:
    called = Called().fact
    request = EmbeddingRequest("small", (SECRET_TEXT, "b"), 256, Dialect("embeddings", "openai", "embed-3"))
    reply = EmbeddingReply((b"", b""), "embed-3-2024", Usage(7, 0, 7))
    call = replace(called.call, provider_model=reply.model, usage=reply.usage, adapter=None, request=request)
    fact = replace(called, call=call, request=request, reply=reply)
    span = of_call(fact, HERE, content=True)
    assert span.name == "embeddings embed-3"
    expected = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "embed-3",
        "gen_ai.response.model": "embed-3-2024",
        "gen_ai.embeddings.dimension.count": 256,
        "gen_ai.usage.input_tokens": 7,
        "dspex.texts": 2,
    }
    assert expected.items() <= span.attributes.items()
    assert SECRET_TEXT not in str(span)


def test_a_failed_call_says_why() -> None:
    facts, sink, _ = tracing()
    failure = {"kind": "timeout", "code": "lm_timeout", "message": f"while asking about {SECRET_TEXT}"}
    facts.announce(Called(error=failure, above=HERE, trace=HERE.child()).fact)
    (span,) = sink.spans
    assert (span.attributes["error.type"], span.error) == ("lm_timeout", "lm_timeout")
    assert "gen_ai.response.model" not in span.attributes


def test_an_answer_from_the_cache_has_a_span_below_the_execution() -> None:
    facts, sink, _ = tracing()
    facts.announce(Called(cache="hit", above=HERE).fact)
    (span,) = sink.spans
    assert (span.trace.trace_id, span.trace.parent_id) == (TRACE, SPAN)
    assert span.attributes["dspex.cache"] == "hit"


def test_executions_and_requests_have_spans() -> None:
    facts, sink, _ = tracing()
    facts.announce(finished(error=UNAVAILABLE, trace=HERE, session_id="s1", version=3))
    facts.announce(RequestFinished("POST", "/v1/predict", 503, NOON, 0.1, "r1", HERE))
    facts.announce(RequestFinished("POST", "/v1/predict", 422, NOON, 0.1, "r1", HERE))
    run, failed, refused = sink.spans
    assert (run.name, run.kind, run.error) == ("execute qa", "internal", "lm_server_error")
    assert run.attributes["dspex.version"] == 3
    assert run.attributes["gen_ai.conversation.id"] == "s1"
    assert (failed.name, failed.kind) == ("POST /v1/predict", "server")
    assert failed.attributes["http.response.status_code"] == 503
    assert (failed.attributes["error.type"], failed.error) == ("503", "")
    assert "error.type" not in refused.attributes


def every_span(content: bool) -> list[Mapping[str, Any]]:
    facts, sink, _ = tracing(content)
    facts.announce(finished(trace=HERE))
    facts.announce(Called(above=HERE, trace=HERE.child()).fact)
    return [span.attributes for span in sink.spans]


def test_no_content_unless_it_is_asked_for() -> None:
    assert SECRET_TEXT not in repr(every_span(content=False))


def test_content_that_is_asked_for_has_the_form_of_the_conventions() -> None:
    run, call = every_span(content=True)
    assert json.loads(run["dspex.inputs"]) == {"note": SECRET_TEXT}
    assert json.loads(run["dspex.outputs"]) == {"answer": SECRET_TEXT}
    said = {"type": "text", "content": SECRET_TEXT}
    assert json.loads(call["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be kind."}]
    assert json.loads(call["gen_ai.input.messages"]) == [{"role": "user", "parts": [said]}]
    assert json.loads(call["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [said], "finish_reason": "stop"}
    ]


@pytest.mark.parametrize(
    ("environ", "endpoint", "goes"),
    [
        ({}, None, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, None, "by variable"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/t"}, None, "by variable"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c/m"}, None, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, None, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, None, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http://ours:1/", "http://ours:1/v1/traces"),
    ],
)
def test_traces_go_where_settings_and_the_usual_variables_say(
    environ: dict[str, str], endpoint: str | None, goes: str | None
) -> None:
    found = destination("traces", TelemetrySettings(endpoint=endpoint), environ)
    assert (found and (found.endpoint or "by variable")) == goes
