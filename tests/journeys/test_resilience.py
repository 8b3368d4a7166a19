"""A model in trouble, seen by callers: over real HTTP, through `dspex serve`, with the simulator's faults."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.commands import dspex
from tests.plugins.service import Service, free_port, running_service

ASK = {"question": "Which?"}
PROGRAMS = """\
programs:
  - {name: qa, signature: "question -> answer"}
  - {name: brief, model: brief, signature: "question -> answer"}
  - {name: rescued, model: rescued, signature: "question -> answer"}
  - {name: narrow, model: narrow, signature: "question -> answer"}
  - {name: lonely, model: lonely, signature: "question -> answer"}
"""


def configuration(simulator: RunningSimulator, dead: str) -> str:
    asked = f'model: openai/gpt-4o-mini, api_base: "{simulator.base_url}", timeout_s: 2'
    quick = "retries: {base_s: 0.01}"
    return f"""\
models:
  default: main
  registry:
    main: {{{asked}, {quick}}}
    brief: {{{asked}, {quick}, breaker: {{open_s: 0.5}}}}
    rescued: {{model: openai/gpt-4o-mini, api_base: "{dead}", {quick}, fallbacks: [other, backup]}}
    other: {{model: openai/gpt-4o-mini, api_base: "{dead}", {quick}}}
    backup: {{model: simulator/backup, temperature: 0.5}}
    narrow: {{{asked}, {quick}, lanes: {{interactive: 1, wait_s: 0.2}}}}
    lonely: {{{asked}, {quick}, breaker: {{failures: 1000}}}}
{PROGRAMS}cache: {{policy: {{mode: "off"}}}}
"""


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, simulator_process: RunningSimulator
) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("resilience")
    dead = f"http://127.0.0.1:{free_port()}/v1"
    with running_service(directory, configuration(simulator_process, dead)) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(service: Service, simulator: RunningSimulator) -> None:
    for model in ("main", "brief", "rescued", "other"):
        operate(service, model, "reset")


def operate(service: Service, model: str, action: str) -> dict[str, Any]:
    with service.client() as client:
        answer = client.post(f"/v1/breakers/{model}/{action}")
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document


def breaker(service: Service, model: str) -> dict[str, Any]:
    with service.client() as client:
        (found,) = [one for one in client.get("/v1/breakers").json()["data"] if one["model"] == model]
        return dict(found)


def trace(service: Service, execution_id: str) -> list[dict[str, Any]]:
    with service.client() as client:
        calls: list[dict[str, Any]] = client.get(f"/v1/executions/{execution_id}").json()["trace"]
        return calls


def test_two_failures_and_an_answer_are_an_answer_with_three_lines(
    service: Service, simulator: RunningSimulator
) -> None:
    faults = [
        {"fault": {"kind": "server_error"}, "times": 1},
        {"fault": {"kind": "rate_limit", "retry_after": 0.1}, "times": 1},
    ]
    simulator.control("script", {"rules": faults})
    answer = service.predict("qa", ASK)
    assert answer.status_code == 200, answer.text
    lines = trace(service, answer.json()["id"])
    assert [line["attempt"] for line in lines] == [1, 2, 3]
    assert [line["error"] and line["error"]["code"] for line in lines] == [
        "lm_server_error",
        "lm_rate_limited",
        None,
    ]


def test_what_the_provider_asks_to_wait_is_waited_or_passed_on(
    service: Service, simulator: RunningSimulator
) -> None:
    simulator.control("script", {"rules": [{"fault": {"kind": "rate_limit", "retry_after": 1}, "times": 1}]})
    started = time.monotonic()
    assert service.predict("qa", ASK).status_code == 200
    assert time.monotonic() - started >= 1
    simulator.control("script", {"rules": [{"fault": {"kind": "rate_limit", "retry_after": 30}}]})
    before = simulator.calls()
    answer = service.predict("qa", ASK)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert simulator.calls() == before + 1


def test_a_model_that_is_down_is_left_alone(service: Service, simulator: RunningSimulator) -> None:
    simulator.control("script", {"rules": [{"fault": {"kind": "server_error"}}]})
    first, second = service.predict("qa", ASK), service.predict("qa", ASK)
    assert [one.json()["code"] for one in (first, second)] == ["lm_server_error"] * 2
    asked = simulator.calls()
    assert asked == 5
    refused = service.predict("qa", ASK)
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (503, "breaker_open")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert "lm_server_error" in problem["detail"]
    assert trace(service, problem["execution_id"]) == []
    assert simulator.calls() == asked
    found = breaker(service, "main")
    assert (found["state"], found["failures"], found["last_error"]) == ("open", 5, "lm_server_error")
    with service.client() as client:
        assert client.get("/health").json()["breakers"]["main"] == "open"


def until_it_is_tried(service: Service) -> dict[str, Any]:
    """The answer of the first call that its breaker lets through."""
    deadline = time.monotonic() + 30
    while (answer := service.predict("brief", ASK).json()).get("code") == "breaker_open":
        assert time.monotonic() < deadline
    return dict(answer)


def test_it_is_tried_again_and_three_answers_close_the_breaker(
    service: Service, simulator: RunningSimulator
) -> None:
    simulator.control("script", {"rules": [{"fault": {"kind": "server_error"}, "times": 5}]})
    while simulator.calls() < 5:
        service.predict("brief", ASK)
    assert until_it_is_tried(service)["status"] == "completed"
    for state in ("half_open", "closed"):
        assert service.predict("brief", ASK).status_code == 200
        assert breaker(service, "brief")["state"] == state


def test_a_trial_that_fails_opens_it_again(service: Service, simulator: RunningSimulator) -> None:
    simulator.control("script", {"rules": [{"fault": {"kind": "reset"}}]})
    while simulator.calls() < 5:
        service.predict("brief", ASK)
    before = breaker(service, "brief")
    assert until_it_is_tried(service)["code"] == "lm_unreachable"
    # One call and no retry, as its breaker is open again.
    assert simulator.calls() == 6
    after = breaker(service, "brief")
    assert (before["failures"], after["failures"]) == (5, 6)
    assert after["since"] > before["since"]


def test_a_fallback_answers_and_is_recorded(service: Service) -> None:
    answer = service.predict("rescued", ASK).json()
    assert (answer["status"], answer["model"], answer["simulated"]) == ("completed", "backup", True)
    lines = trace(service, answer["id"])
    # Two models that are down, three attempts each.
    assert [line["model"] for line in lines] == ["rescued"] * 3 + ["other"] * 3 + ["backup"]
    assert [line["attempt"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert [line["fallback_for"] for line in lines] == [None] * 3 + ["rescued"] * 4
    assert lines[-1]["messages"] == lines[0]["messages"]
    assert (lines[-1]["options"], lines[0]["options"] is None) == (None, False)
    operate(service, "rescued", "open")
    again = service.predict("rescued", ASK).json()
    assert again["model"] == "backup"


def test_an_operator_opens_closes_and_resets(service: Service) -> None:
    assert operate(service, "main", "open")["state"] == "open"
    refused = service.predict("qa", ASK)
    assert (refused.status_code, refused.json()["code"]) == (503, "breaker_open")
    assert "retry-after" not in refused.headers
    assert breaker(service, "main")["retry_after"] is None
    assert operate(service, "main", "close")["state"] == "closed"
    assert service.predict("qa", ASK).status_code == 200
    with service.client() as client:
        unknown = client.post("/v1/breakers/nobody/open")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_model")


def test_the_command_line_asks_the_running_node(service: Service, tmp_path: Path) -> None:
    def breakers(*arguments: str) -> str:
        return dspex(tmp_path, "breakers", *arguments, "--url", service.url).stdout

    assert "open" in breakers("open", "main")
    assert breaker(service, "main")["state"] == "open"
    table = breakers("list")
    assert "LAST_ERROR" in table and "rescued" in table
    unknown = dspex(tmp_path, "breakers", "close", "nobody", "--url", service.url, status=1)
    assert "There is no model 'nobody'" in unknown.stderr


def test_one_that_takes_a_single_call_refuses_the_next_in_time(
    service: Service, simulator: RunningSimulator
) -> None:
    simulator.control("faults", {"latency": "700ms"})
    with ThreadPoolExecutor(2) as callers:
        answers = list(callers.map(lambda _: service.predict("narrow", ASK), range(2)))
    simulator.control("faults", {"latency": "0ms"})
    statuses = sorted((one.status_code, one.json().get("code")) for one in answers)
    assert statuses == [(200, None), (429, "lane_full")]
    assert breaker(service, "narrow")["lanes"]["interactive"] == {"in_flight": 0, "waiting": 0}


def test_the_requests_own_time_limit_bounds_all_attempts_together(
    service: Service, simulator: RunningSimulator
) -> None:
    simulator.control("script", {"rules": [{"fault": {"kind": "rate_limit", "retry_after": 0.4}}]})
    started = time.monotonic()
    answer = service.predict("lonely", ASK, timeout_s=0.6)
    assert time.monotonic() - started < 10
    assert answer.json()["code"] == "lm_rate_limited"
    assert len(trace(service, answer.json()["execution_id"])) == 2


def test_callers_who_are_in_a_hurry_do_not_open_a_breaker_for_everybody(
    service: Service, simulator: RunningSimulator
) -> None:
    simulator.control("faults", {"latency": "300ms"})
    for _ in range(6):
        assert service.predict("qa", ASK, timeout_s=0.05).json()["kind"] == "timeout"
    simulator.control("faults", {"latency": "0ms"})
    assert breaker(service, "main")["state"] == "closed"
