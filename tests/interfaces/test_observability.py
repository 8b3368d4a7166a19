"""Metrics, analytics and alerts as callers see them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from dspex.configuration.observing import MetricsSettings
from dspex.configuration.settings import Settings
from dspex.observability.spans import Span
from dspex.observability.tracing import Sampler, Tracer
from tests.interfaces.node import TestNode, mock_program, on_a_socket
from tests.making import execution, optimization
from tests.plugins.service import free_port
from tests.unit.observability.given import UNAVAILABLE, finished


async def ran(node: TestNode, **changes: Any) -> None:
    await node.executions.save(
        [execution(**{"created_at": datetime.now(UTC), "duration_ms": 10.0, "cost_usd": 0.5, **changes})]
    )


async def test_a_prediction_shows_in_the_metrics() -> None:
    async with TestNode().client() as client:
        await mock_program(client, mock={"outputs": {"answer": "x"}})
        assert (await client.post("/v1/programs/qa/predict", json={"inputs": {"question": "a"}})).is_success
        refused = await client.post("/v1/programs/qa/predict", json={"inputs": {}})
        assert refused.status_code == 422
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert answer.headers["cache-control"] == "no-store"
    text = answer.text
    assert 'dspy_predictions_total{program="qa",status="success"} 1.0' in text
    route = 'route="/v1/programs/{name}/predict"'
    assert f'dspex_http_requests_total{{method="POST",{route},status="200"}} 1.0' in text
    assert f'dspex_http_requests_total{{method="POST",{route},status="422"}} 1.0' in text
    assert "dspex_input_bytes_sum 27.0" in text


async def test_openmetrics_for_who_accepts_it() -> None:
    async with TestNode().client() as client:
        answer = await client.get(
            "/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"}
        )
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


async def test_metrics_are_only_read() -> None:
    async with TestNode().client() as client:
        posted, head = await client.post("/metrics", json={}), await client.head("/metrics")
    assert (posted.status_code, posted.json()["code"]) == (405, "method_not_allowed")
    assert (head.status_code, head.content) == (200, b"")


async def test_metrics_at_an_address_of_their_own_are_nowhere_else() -> None:
    port = free_port()
    node = TestNode(Settings(log_level="error", metrics=MetricsSettings(port=port)))
    async with node.client() as client:
        assert (await client.get("/metrics")).status_code == 404
    async with (
        on_a_socket(node.application, port) as bound,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{bound}") as client,
    ):
        # Prometheus may reach it by any name; nothing is behind it that would need the guard.
        metrics = await client.get("/metrics", headers={"host": "dspex.internal"})
        other = await client.get("/health", headers={"host": "dspex.internal"})
    assert metrics.status_code == 200
    assert "dspex_build_info" in metrics.text
    assert (other.status_code, other.json()["code"]) == (404, "no_route")


async def test_callers_who_do_not_wait_raise_no_alert() -> None:
    node = TestNode()
    async with node.client() as client:
        await mock_program(client, "slow", mock={"latency_ms": 60_000})
        body = {"inputs": {"question": "?"}, "timeout_s": 0.01}
        for _ in range(12):
            assert (await client.post("/v1/programs/slow/predict", json=body)).status_code == 504
        await node.alerts.look()
        alerts = (await client.get("/v1/alerts")).json()
    assert (alerts["data"], node.alerts.active_programs) == ([], 1)


async def test_a_metric_is_told_whole_and_in_buckets() -> None:
    node = TestNode()
    await ran(node, duration_ms=10.0)
    await ran(node, duration_ms=30.0)
    await ran(node, duration_ms=500.0, project="somebody else's")
    async with node.client() as client:
        answer = await client.get("/v1/analytics", params={"bucket": 21600})
        cost = await client.get("/v1/analytics", params={"metric": "cost_usd", "program": "qa"})
    document = answer.json()
    assert answer.status_code == 200
    assert (document["metric"], document["count"], document["max"]) == ("duration_ms", 2, 30.0)
    assert [one["count"] for one in document["buckets"]] == [0, 0, 0, 2]
    assert (cost.json()["sum"], cost.json()["buckets"]) == (1.0, [])


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"metric": "happiness"}, "bad_request"),
        ({"bucket": "0"}, "bad_request"),
        ({"bucket": "1"}, "too_many_buckets"),
        ({"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "bad_request"),
        ({"unknown": "1"}, "bad_request"),
    ],
)
async def test_questions_that_make_no_sense_are_refused(query: dict[str, str], code: str) -> None:
    async with TestNode().client() as client:
        answer = await client.get("/v1/analytics", params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


@pytest.mark.parametrize("until", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
async def test_the_ends_of_time_are_times(until: str) -> None:
    async with TestNode().client() as client:
        answer = await client.get("/v1/analytics", params={"until": until})
    assert (answer.status_code, answer.json()["count"]) == (200, 0)


async def test_the_summary_tells_the_last_minute_from_the_last_hour() -> None:
    node = TestNode()
    await ran(node, cache="hit", session_id="s1")
    await ran(node, created_at=datetime.now(UTC) - timedelta(minutes=30), cache="miss", session_id="s2")
    await ran(node, created_at=datetime.now(UTC) - timedelta(hours=2))
    for state, ago in (("completed", 1), ("completed", 30), ("failed", 30), ("cancelled", 30)):
        now = datetime.now(UTC)
        await node.optimizations.add(
            *optimization(state=state, completed_at=now - timedelta(minutes=ago, seconds=-30))
        )
    async with node.client() as client:
        summary = (await client.get("/v1/analytics/summary")).json()
    minute, hour = summary["last_minute"], summary["last_hour"]
    assert (minute["executions"], minute["hit_rate"], minute["active_sessions"]) == (1, 1.0, 1)
    assert (hour["executions"], hour["hit_rate"], hour["active_sessions"]) == (2, 0.5, 2)
    assert (hour["cost_usd"], hour["duration_p95_ms"], hour["error_rate"]) == (1.0, 10.0, 0.0)
    one = {"completed": 1, "failed": 0, "cancelled": 0, "success_rate": 1.0}
    assert minute["optimizations"] == one
    all_of_them = {"completed": 2, "failed": 1, "cancelled": 1, "success_rate": pytest.approx(2 / 3)}
    assert hour["optimizations"] == all_of_them


async def test_alerts_are_listed_while_they_last_and_afterwards() -> None:
    node = TestNode()
    for _ in range(10):
        node.facts.announce(finished(error=UNAVAILABLE))
        node.facts.announce(finished(error=UNAVAILABLE, project="somebody else's"))
    await node.alerts.look()
    async with node.client() as client:
        (alert,) = (await client.get("/v1/alerts")).json()["data"]
        assert (alert["rule"], alert["state"], alert["program"]) == ("error_rate", "active", "qa")
        assert (alert["value"], alert["resolved_at"]) == (1.0, None)
        for _ in range(200):
            node.facts.announce(finished())
        await node.alerts.look()
        (over,) = (await client.get("/v1/alerts", params={"state": "recent"})).json()["data"]
        active = (await client.get("/v1/alerts", params={"state": "active"})).json()["data"]
        assert (await client.get("/v1/alerts", params={"state": "odd"})).status_code == 422
    assert (over["id"], over["state"], active) == (alert["id"], "resolved", [])


class Sink:
    def __init__(self) -> None:
        self.spans: list[Span] = []

    def put(self, span: Span) -> None:
        self.spans.append(span)


async def test_a_request_and_its_execution_are_one_trace() -> None:
    sink = Sink()
    node = TestNode()
    tracer = Tracer(node.facts, sink, Sampler(), content=False)
    node.serve_with(tracer)
    caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with node.client() as client:
        await mock_program(client, mock={"outputs": {"answer": "x"}})
        sink.spans.clear()
        await client.post(
            "/v1/programs/qa/predict", json={"inputs": {"question": "a"}}, headers={"traceparent": caller}
        )
    run, request = sink.spans
    assert (request.name, run.name) == ("POST /v1/programs/{name}/predict", "execute qa")
    assert request.trace.trace_id == run.trace.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (request.trace.parent_id, run.trace.parent_id) == ("00f067aa0ba902b7", request.trace.span_id)


async def test_a_program_that_was_made_here_has_alert_thresholds_of_its_own() -> None:
    node = TestNode()
    async with node.client() as client:
        made = await mock_program(client, "strict", alerts={"slow_execution_s": 1e-9})
        assert made["alerts"] == {
            "slow_execution_s": 1e-9,
            "slow_pool_call_s": None,
            "error_rate": None,
            "error_rate_executions": None,
            "long_optimization_s": None,
        }
        assert (await mock_program(client, "usual"))["alerts"] is None
        for name in ("strict", "usual"):
            asked = await client.post(f"/v1/programs/{name}/predict", json={"inputs": {"question": "?"}})
            assert asked.status_code == 200
        await node.alerts.look()
        found = (await client.get("/v1/alerts")).json()["data"]
        assert [(one["rule"], one["program"]) for one in found] == [("slow_execution", "strict")]
        bad = await client.post(
            "/v1/programs", json={"name": "x", "signature": "q -> a", "alerts": {"error_rate": 2}}
        )
        assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (422, "/alerts/error_rate")
