"""Traces, alerts and defects of a real service, at collectors and receivers that speak the real wire."""

import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.collector import COMPLETION, Receiver, receiving
from tests.plugins.service import Service, config, free_port, running_service

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PLANTED = "the patient's name is Ada"
KEY = "sk-planted-0123456789"
SERVER, INTERNAL, CLIENT = 2, 1, 3
NOT_THERE = f"http://127.0.0.1:{free_port()}"


def otel(endpoint: str, **more: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "300",
        "OPENAI_API_KEY": KEY,
        **more,
    }


def asked(service: Service, **headers: str) -> Any:
    with service.client(headers=headers) as client:
        answer = client.post(
            "/v1/programs/qa/predict", json={"inputs": {"question": PLANTED}, "use_cache": False}
        )
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("executor", ["native", "pool"])
def test_one_trace_from_the_caller_through_dspex_to_the_provider(tmp_path: Path, executor: str) -> None:
    program = f"- {{name: qa, signature: 'question -> answer', executor: {executor}}}"
    with receiving(COMPLETION) as provider, receiving() as collector:
        declared = config(f"{provider.url}/v1", program).replace(
            "openai/gpt-4o-mini", "openai/gpt-4o-mini, env: OPENAI_API_KEY"
        )
        variables = otel(
            collector.url,
            OTEL_SERVICE_NAME="answers",
            OTEL_EXPORTER_OTLP_HEADERS="x-tenant=t-0123456",
        )
        with running_service(tmp_path, declared, environment=variables) as service:
            answer = asked(service, traceparent=CALLER)
            asked(service, traceparent=CALLER[:-2] + "00")
            collector.until(lambda: _named(collector, "POST /v1/programs/{name}/predict"))
            collector.until(lambda: _tokens(collector) == {"input": 200, "output": 40})
            log = service.log
        of_request, of_execution, of_call = (
            _named(collector, name)[0]
            for name in ("POST /v1/programs/{name}/predict", "execute qa", "chat gpt-4o-mini")
        )
        assert {one["trace_id"] for one in (of_request, of_execution, of_call)} == {CALLER[3:35]}
        assert of_request["parent_id"] == CALLER[36:52]
        assert of_execution["parent_id"] == of_request["span_id"]
        assert of_call["parent_id"] == of_execution["span_id"]
        assert (of_request["kind"], of_execution["kind"], of_call["kind"]) == (SERVER, INTERNAL, CLIENT)
        assert of_request["started"] <= of_execution["started"] <= of_call["started"]
        assert of_call["ended"] <= of_execution["ended"] + 1_000_000
        assert of_call["resource"]["service.name"] == "answers"
        assert of_execution["attributes"]["dspex.execution.id"] == answer["id"]
        said = of_call["attributes"]
        assert said["gen_ai.operation.name"] == "chat"
        assert said["gen_ai.provider.name"] == "openai"
        assert said["gen_ai.request.model"] == "gpt-4o-mini"
        assert said["gen_ai.response.model"] == "gpt-4o-mini-2024-07-18"
        assert said["gen_ai.response.id"] == "chatcmpl-1"
        assert said["gen_ai.response.finish_reasons"] == ["stop"]
        assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (100, 20)
        assert said["gen_ai.request.max_tokens"] == 1000

        # The provider is told whose child its own work is, also that nobody keeps the second trace.
        first, second = (one.headers["traceparent"] for one in provider.received)
        assert first == f"00-{CALLER[3:35]}-{of_call['span_id']}-01"
        assert second.startswith(f"00-{CALLER[3:35]}-")
        assert second.endswith("-00")
        assert len(_named(collector, "execute qa")) == 1

        # Neither content nor keys, anywhere that telemetry goes.
        sent = b"".join(one.body for one in collector.received)
        assert PLANTED.encode() not in sent
        assert b"Paris" not in sent
        assert KEY.encode() not in sent
        assert KEY not in log
        assert all(one.headers["x-tenant"] == "t-0123456" for one in collector.received)
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        assert {one["trace_id"] for one in lines if one["event"] == "request" and "execution_id" in one} == {
            CALLER[3:35]
        }


def _named(collector: Receiver, name: str) -> list[dict[str, Any]]:
    return [span for span in collector.spans() if span["name"] == name]


def _tokens(collector: Receiver) -> dict[str, float]:
    """Tokens that the collector knows of, by type."""
    usage = collector.metrics().get("gen_ai.client.token.usage")
    points = [] if usage is None else usage.histogram.data_points
    return {
        one.value.string_value: point.sum
        for point in points
        for one in point.attributes
        if one.key == "gen_ai.token.type"
    }


def test_content_goes_along_when_it_is_asked_for(tmp_path: Path) -> None:
    with receiving(COMPLETION) as provider, receiving() as collector:
        declared = config(
            f"{provider.url}/v1", extra=f"telemetry: {{endpoint: '{collector.url}', content: true}}"
        )
        variables = otel("", OPENAI_API_KEY="")
        with running_service(tmp_path, declared, environment=variables) as service:
            asked(service)
            collector.until(lambda: _named(collector, "execute qa"))
        said = _named(collector, "chat gpt-4o-mini")[0]["attributes"]
        assert PLANTED in said["gen_ai.input.messages"]
        assert "Paris" in said["gen_ai.output.messages"]
        assert json.loads(_named(collector, "execute qa")[0]["attributes"]["dspex.inputs"]) == {
            "question": PLANTED
        }


@pytest.mark.parametrize("trouble", ["not there", "hangs up with errors"])
def test_a_dead_collector_harms_nobody(tmp_path: Path, trouble: str) -> None:
    with receiving() as collector:
        collector.status = 503
        endpoint = NOT_THERE if trouble == "not there" else collector.url
        declared = "programs: [{name: qa, signature: 'question -> answer', executor: mock}]"
        with running_service(tmp_path, declared, environment=otel(endpoint)) as service:
            with service.client() as client:
                began = time.monotonic()
                for _ in range(50):
                    body = {"inputs": {"question": "a"}}
                    assert client.post("/v1/programs/qa/predict", json=body).status_code == 200
                assert time.monotonic() - began < 20
            began = time.monotonic()
            assert service.stop() == 0
            assert time.monotonic() - began < 45


def test_an_alert_reaches_its_webhook_signed(tmp_path: Path) -> None:
    with receiving() as hook:
        declared = f"""
alerts:
  webhooks: [{{url: "{hook.url}/alerts", secret_env: HOOK_SECRET, allow_private: true}}]
programs:
  - name: qa
    signature: "question -> answer"
    executor: mock
    mock: {{latency_ms: 120, outputs: {{answer: x}}}}
    alerts: {{slow_execution_s: 0.1}}
"""
        with running_service(tmp_path, declared, environment={"HOOK_SECRET": "whsec-planted"}) as service:
            asked(service)
            hook.until(lambda: hook.received)
            with service.client() as client:
                (alert,) = client.get("/v1/alerts").json()["data"]
            assert "whsec-planted" not in service.log
            assert '"alert_raised"' in service.log
        request = hook.received[0]
        told = json.loads(request.body)
        assert (told["event"], told["alert"]["id"], told["alert"]["rule"]) == (
            "alert.raised",
            alert["id"],
            "slow_execution",
        )
        at, signature = (part.partition("=")[2] for part in request.headers["x-dspex-signature"].split(","))
        expected = hmac.new(b"whsec-planted", f"{at}.".encode() + request.body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(signature, expected)
        assert abs(int(at) - time.time()) < 60


def test_a_secret_that_is_named_and_missing_stops_the_start(tmp_path: Path) -> None:
    declared = "alerts: {webhooks: [{url: 'https://hooks.example.com/x', secret_env: NOT_SET_ANYWHERE}]}"
    with running_service(tmp_path, declared, ready=False) as service:
        assert service.process.wait(timeout=30) != 0
        assert "NOT_SET_ANYWHERE" in service.log
