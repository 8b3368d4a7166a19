"""Limits, budgets and costs as callers and operators meet them: over HTTP and on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.commands import dspex
from tests.plugins.service import Service, running_service

PROGRAMS = """\
  - {name: qa, signature: 'question -> answer'}
  - {name: limited, signature: 'question -> answer', rate_limit: {requests_per_minute: 2}}
  - {name: capped, signature: 'question -> answer', budget: {usd: 0.003, per: day}}
  - {name: unpriced, signature: 'question -> answer', model: free, budget: {usd: 1}}
  - {name: crowded, signature: 'question -> answer', model: narrow}
"""
# 0.001 dollars are reserved for the 100 tokens of a reply, and next to nothing for the prompt.
PRICING = "pricing: {input_per_million: 0.001, output_per_million: 10}"


def config(base_url: str) -> str:
    model = f'model: openai/gpt-4o-mini, api_base: "{base_url}", max_tokens: 100'
    return f"""\
models:
  default: main
  registry:
    main: {{{model}, {PRICING}}}
    free: {{{model}}}
    narrow: {{{model}, rate_limit: {{requests_per_minute: 1}}}}
cache: {{policy: {{mode: "off"}}}}
rate_limits: {{session: {{requests_per_minute: 1}}}}
programs:
{PROGRAMS}"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spending")


@pytest.fixture
def service(place: Path, simulator: RunningSimulator) -> Any:
    with running_service(place, config(simulator.base_url)) as running:
        yield running


def refused(service: Service, program: str, **more: Any) -> dict[str, Any]:
    answer = service.predict(program, {"question": "Why?"}, **more)
    problem: dict[str, Any] = answer.json()
    assert answer.status_code == problem["status"], problem
    if "retry_after" in problem:
        assert int(answer.headers["retry-after"]) >= problem["retry_after"]
    return problem


def answered(service: Service, program: str, **more: Any) -> None:
    answer = service.predict(program, {"question": "Why?"}, **more)
    assert answer.status_code == 200, answer.text


def used_up(service: Service, program: str) -> tuple[int, dict[str, Any]]:
    """How many calls passed, and what the first was told that did not."""
    for passed in range(100):
        answer = service.predict(program, {"question": "Why?"})
        if answer.status_code != 200:
            problem: dict[str, Any] = answer.json()
            assert answer.status_code == problem["status"]
            return passed, problem
    raise AssertionError("the budget is never used up")


def test_limits_budgets_and_costs(service: Service, place: Path) -> None:
    for _ in range(2):
        answered(service, "limited")
    problem = refused(service, "limited")
    assert (problem["status"], problem["code"], problem["kind"]) == (429, "rate_limited", "exhausted")
    assert 0 < problem["retry_after"] <= 61

    answered(service, "qa", session_id="s")
    assert refused(service, "qa", session_id="s")["code"] == "rate_limited"
    answered(service, "qa", session_id="t")

    answered(service, "crowded")
    assert refused(service, "crowded")["code"] == "rate_limited"

    problem = refused(service, "unpriced")
    assert (problem["status"], problem["code"]) == (422, "budget_needs_price")

    spent, problem = used_up(service, "capped")
    assert (problem["status"], problem["code"], problem["kind"]) == (402, "budget_exhausted", "exhausted")
    assert 0 < problem["retry_after"] <= 86_400
    assert problem["execution_id"]

    with service.client() as client:
        (budget,) = client.get("/v1/budgets").json()["data"]
        by_program = client.get("/costs", params={"group_by": "program"}).json()["data"]
        assert client.get("/costs", params={"group_by": "colour"}).status_code == 422
        everything = client.get("/costs").json()["data"][0]
    costs = {line["program"]: line for line in by_program}
    assert set(by_program[0]) & {"day", "model", "key"} == set()
    assert set(everything) >= {"day", "program", "model", "key"}
    assert costs["capped"]["executions"] == spent + 1
    # Those that were refused asked nobody.
    assert [costs[name]["unpriced"] for name in ("limited", "capped")] == [0, 0]
    assert costs["crowded"]["cost_usd"] == 0
    assert (budget["scope"], budget["name"], budget["limit_usd"]) == ("program", "capped", 0.003)
    assert budget["left_usd"] >= 0

    assert service.stop() == 0
    (budget,) = json.loads(dspex(place, "budgets", "--json").stdout)
    assert budget["spent_usd"] == pytest.approx(costs["capped"]["cost_usd"], abs=1e-8)
    assert budget["reserved_usd"] == 0
    listed = json.loads(dspex(place, "costs", "--by", "program", "--by", "model", "--json").stdout)
    assert {(line["program"], line["model"]) for line in listed["data"]} >= {
        ("qa", "main"),
        ("crowded", "narrow"),
    }
    table = dspex(place, "costs", "--since", "2026-01-01", "--until", "2100-01-01").stdout
    assert table.splitlines()[0].split() == [
        *("DAY", "PROGRAM", "MODEL", "KEY", "EXECUTIONS", "INPUT", "OUTPUT", "USD", "SAVED", "UNPRICED")
    ]
    assert table.splitlines()[-1].startswith("total")


def test_a_budget_that_is_used_up_stays_so_when_the_node_is_killed(place: Path, service: Service) -> None:
    used_up(service, "capped")
    service.kill()
    with running_service(place, (place / "dspex.yaml").read_text()) as again:
        assert refused(again, "capped")["code"] == "budget_exhausted"


def test_a_program_made_through_the_api_has_limits(service: Service) -> None:
    limits = {"rate_limit": {"requests_per_minute": 1}, "budget": {"usd": 5, "per": "total"}}
    body = {"name": "made", "signature": "question -> answer", "deploy": True, **limits}
    with service.client() as client:
        made = client.post("/v1/programs", json=body)
        assert made.status_code == 201, made.text
        assert made.json()["rate_limit"] == {"requests_per_minute": 1, "tokens_per_minute": None}
        assert made.json()["budget"] == {"usd": 5.0, "per": "total"}
        for wrong in ({"usd": 0}, {"usd": 5, "per": "year"}, {"usd": 5, "currency": "EUR"}, {}):
            answer = client.post("/v1/programs", json={**body, "name": "wrong", "budget": wrong})
            assert answer.status_code == 422, wrong
            assert answer.json()["errors"][0]["pointer"].startswith("/budget"), answer.text
    answered(service, "made")
    assert refused(service, "made")["code"] == "rate_limited"
