"""What a caller sees when the model's server misbehaves. Never a 500, always on record."""

from typing import Any

import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.service import Service, config, free_port, running_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator_process: RunningSimulator) -> Any:
    directory = tmp_path_factory.mktemp("service")
    dead, keyless = f"http://127.0.0.1:{free_port()}/v1", "NO_SUCH_KEY"
    programs = """\
- {name: qa, signature: "question -> answer"}
- {name: dead, model: dead, signature: "question -> answer"}
- {name: keyless, model: keyless, signature: "question -> answer"}"""
    # One attempt each, and no breaker in the way: each test is about one fault.
    alone = "retries: {attempts: 1}, breaker: {failures: 1000}"
    models = f"""max_tokens: 1000, timeout_s: 2, {alone}}}
    dead: {{model: openai/gpt-4o-mini, api_base: "{dead}", {alone}}}
    keyless: {{model: openai/gpt-4o-mini, env: {keyless}, {alone}}}"""
    declared = config(simulator_process.base_url, programs).replace("max_tokens: 1000}", models)
    with running_service(directory, declared + 'cache: {policy: {mode: "off"}}\n') as running:
        yield running


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"kind": "rate_limit", "retry_after": 7}, 429, "lm_rate_limited"),
        ({"kind": "server_error"}, 503, "lm_server_error"),
        ({"kind": "hang"}, 504, "lm_timeout"),
        ({"kind": "reset"}, 503, "lm_unreachable"),
        ({"kind": "truncated_body"}, 503, "lm_unreachable"),
        ({"kind": "garbage_body"}, 503, "lm_provider_error"),
        ({"kind": "malformed_json"}, 503, "lm_provider_error"),
        ({"kind": "empty"}, 503, "unusable_reply"),
    ],
)
def test_a_fault_becomes_a_problem_and_is_recorded(
    service: Service, simulator: RunningSimulator, fault: dict[str, Any], status: int, code: str
) -> None:
    simulator.control("script", {"rules": [{"fault": fault}]})
    answer = service.predict("qa", {"question": "Which?"})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    if "retry_after" in fault:
        assert answer.headers["retry-after"] == "7"
    with service.client() as client:
        record = client.get(f"/v1/executions/{problem['execution_id']}").json()
    assert record["status"] == "failed"
    assert record["error"]["code"] == code
    assert record["trace"]


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [("dead", "lm_unreachable", "can't be reached"), ("keyless", "lm_key_missing", "NO_SUCH_KEY")],
)
def test_a_model_that_is_not_there(service: Service, program: str, code: str, said: str) -> None:
    answer = service.predict(program, {"question": "Which?"})
    assert (answer.status_code, answer.json()["code"]) == (503, code)
    assert said in answer.json()["detail"]


def test_a_fault_in_the_first_reply_is_mended_by_the_json_fallback(
    service: Service, simulator: RunningSimulator
) -> None:
    simulator.control("script", {"rules": [{"calls": [0], "fault": {"kind": "missing_marker"}}]})
    answer = service.predict("qa", {"question": "Which?"}).json()
    assert answer["status"] == "completed"
    with service.client() as client:
        trace = client.get(f"/v1/executions/{answer['id']}").json()["trace"]
    assert [call["adapter"] for call in trace] == ["chat", "json"]
    assert answer["usage"]["input_tokens"] == sum(call["usage"]["input_tokens"] for call in trace)


def test_a_request_may_set_its_own_time_limit(service: Service, simulator: RunningSimulator) -> None:
    simulator.control("faults", {"latency": "1500ms"})
    answer = service.predict("qa", {"question": "Which?"}, timeout_s=0.2)
    assert (answer.status_code, answer.json()["kind"]) == (504, "timeout")
    simulator.control("faults", {"latency": "0ms"})
