"""Pipelines with a step that only real DSPy runs: the whole goes into a pool, and answers as a native one does."""

import shutil
from collections.abc import Iterator

import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.pools import PROJECT
from tests.plugins.service import Service, config, running_service

PROGRAMS = """\
- name: mixed
  pipeline:
    inputs: "ticket"
    steps:
      - {name: classify, signature: "ticket -> category: Literal['bug', 'question'], urgency: int"}
      - name: own
        module: "shop.programs:Answer"
        signature: "question -> answer, greeting"
        inputs: {question: ticket}
      - {name: last, module: chain_of_thought, signature: "answer, category -> text", when: "classify.urgency > 4"}
    outputs: {text: last.text, greeting: own.greeting, category: classify.category}
- name: native
  pipeline:
    inputs: "ticket"
    steps:
      - {name: one, signature: "ticket -> a: int, b: list[str]"}
      - {name: two, module: chain_of_thought, signature: "b -> c", inputs: {b: one.b}}
    outputs: {a: one.a, c: two.c}
- name: pooled
  executor: pool
  pipeline:
    inputs: "ticket"
    steps:
      - {name: one, signature: "ticket -> a: int, b: list[str]"}
      - {name: two, module: chain_of_thought, signature: "b -> c", inputs: {b: one.b}}
    outputs: {a: one.a, c: two.c}
- name: lenient
  pipeline:
    inputs: "ticket"
    steps:
      - {name: sure, signature: "ticket -> a"}
      - name: unsure
        module: "shop.faults:Raising"
        signature: "question -> b"
        inputs: {question: ticket}
        on_failure: skip
    outputs: {a: sure.a, b: unsure.b}"""
URGENT = {"output": "urgency", "fields": {"category": "bug", "urgency": 9}}


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, simulator_process: RunningSimulator
) -> Iterator[Service]:
    place = tmp_path_factory.mktemp("pools")
    shutil.copytree(PROJECT / "shop", place / "shop")
    declared = config(simulator_process.base_url, PROGRAMS, 'cache: {policy: {mode: "off"}}')
    with running_service(place, declared) as running:
        yield running


def test_a_step_of_ones_own_takes_the_whole_into_a_pool(
    service: Service, simulator: RunningSimulator
) -> None:
    simulator.control("script", {"rules": [URGENT]})
    with service.client() as client:
        version = client.get("/v1/programs/mixed").json()["version"]
        assert version["executor"] == "pool", version["error"]
        assert version["executor_reason"] == "step 'own': a module of your own runs with real DSPy"
        answer = service.predict("mixed", {"ticket": "It broke."})
        body = answer.json()
        assert answer.status_code == 200, body
        assert body["outputs"]["greeting"] == "hello" and body["outputs"]["category"] == "bug"
        assert [(step["name"], step["status"]) for step in body["steps"]] == [
            ("classify", "completed"),
            ("own", "completed"),
            ("last", "completed"),
        ]
        assert all(step["usage"]["total_tokens"] > 0 for step in body["steps"])
        record = client.get(f"/v1/executions/{body['id']}").json()
        assert {call["step"] for call in record["trace"]} == {"classify", "own", "last"}
        assert record["steps"][0]["outputs"] == {"category": "bug", "urgency": 9}
        saved = client.get("/v1/programs/mixed/export").json()
        assert list(saved) == ["classify", "own.answer", "last.predict", "metadata"]


def test_a_pool_answers_as_the_native_plan(service: Service, simulator: RunningSimulator) -> None:
    inputs = {"ticket": "Which of these?"}
    native = service.predict("native", inputs, parameters={"temperature": 0.5}).json()
    pooled = service.predict("pooled", inputs, parameters={"temperature": 0.5}).json()
    assert native["outputs"] == pooled["outputs"]
    with service.client() as client:
        traces = [
            [
                (call["step"], call["messages"], call["options"]["temperature"])
                for call in client.get(f"/v1/executions/{one['id']}").json()["trace"]
            ]
            for one in (native, pooled)
        ]
    assert traces[0] == traces[1]
    assert {one[2] for one in traces[0]} == {0.5}


def test_a_step_that_fails_in_a_pool_leaves_what_finished(
    service: Service, simulator: RunningSimulator
) -> None:
    simulator.control("script", {"rules": [URGENT, {"output": "text", "text": "I would rather not."}]})
    answer = service.predict("mixed", {"ticket": "It broke."})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (503, "unusable_reply"), problem
    assert problem["partial"]["classify"] == {"category": "bug", "urgency": 9}
    assert {step["name"]: step["status"] for step in problem["steps"]}["last"] == "failed"


def test_a_step_that_may_fail_in_a_pool(service: Service) -> None:
    answer = service.predict("lenient", {"ticket": "It broke."})
    body = answer.json()
    assert answer.status_code == 200, body
    assert body["outputs"]["a"] and body["outputs"]["b"] is None
    failed = next(step for step in body["steps"] if step["name"] == "unsure")
    assert (failed["status"], failed["error"]["code"]) == ("failed", "program_failed")


def test_code_over_http_is_for_admins_alone(service: Service) -> None:
    step = {"name": "own", "module": "shop.programs:Answer", "signature": "question -> answer"}
    pipeline = {"inputs": "question", "steps": [step], "outputs": {"answer": "own.answer"}}
    with service.client() as client:
        made = client.post("/v1/programs", json={"name": "api", "pipeline": pipeline, "deploy": True})
        assert made.json()["status"] == "deployed", made.text
        bad = {**pipeline, "steps": [{**step, "config": {"n": 3}}]}
        refused = client.post("/v1/programs", json={"name": "bad", "pipeline": bad})
        assert refused.json()["errors"][0]["pointer"] == "/pipeline/steps/0/config/n", refused.text
