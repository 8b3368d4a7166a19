"""Pipelines over HTTP: declared, run, traced, moved, and what a caller sees of a step that fails."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dspex.access.records import LOCAL_OPERATOR
from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.configuration.settings import Limits, Settings
from dspex.executions.events import Event, FieldDelta, StatusChanged, StepChanged
from dspex.executions.requests import PredictionRequest
from dspex.providers.language_models.simulator.client import SimulatorClient
from dspex.providers.language_models.simulator.scripts import Script
from tests.interfaces.node import TestNode
from tests.plugins.compiler import ForkingCompiler

CLASSIFY = {"name": "classify", "signature": "ticket -> category: Literal['bug', 'question'], urgency: int"}
SENTIMENT = {"name": "sentiment", "signature": "ticket -> sentiment"}
ESCALATE = {
    "name": "escalate",
    "module": "chain_of_thought",
    "signature": "ticket, why -> note",
    "inputs": {"why": "classify.category"},
    "when": "classify.urgency >= 4",
}
REPLY = {"name": "reply", "signature": "ticket, category -> answer"}
PIPELINE: dict[str, Any] = {
    "inputs": "ticket: str",
    "steps": [CLASSIFY, SENTIMENT, ESCALATE, REPLY],
    "outputs": {"answer": "reply.answer", "sentiment": "sentiment.sentiment", "note": "escalate.note"},
}
URGENT = {"output": "urgency", "fields": {"category": "bug", "urgency": 9}}
CALM = {"output": "urgency", "fields": {"category": "question", "urgency": 1}}
REGISTRY = {"simulator": ModelSettings(model="simulator/default", retries={"attempts": 1})}
SETTINGS = Settings(log_level="error", models=ModelRegistry(default="simulator", registry=REGISTRY))


class Node(TestNode):
    """With a simulator that a test can write a script for."""

    def script(self, *rules: dict[str, Any]) -> None:
        client = self.services.predictions._executions._gateway._clients["simulator"]
        assert isinstance(client, SimulatorClient)
        client.simulator.set_script(Script.model_validate({"rules": list(rules)}))


@pytest.fixture
def node(compiler_address: Path) -> Node:
    return Node(settings=SETTINGS, compiler=ForkingCompiler(compiler_address))


@pytest.fixture
async def client(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with node.client(timeout=60) as client:
        yield client


async def make(client: httpx.AsyncClient, pipeline: dict[str, Any] = PIPELINE, **more: Any) -> dict[str, Any]:
    body = {"name": "support", "pipeline": pipeline, "deploy": True, **more}
    made = await client.post("/v1/programs", json=body)
    assert made.status_code == 201, made.text
    document: dict[str, Any] = made.json()
    assert document["status"] == "deployed", document["version"]["error"]
    return document


async def predict(client: httpx.AsyncClient, ticket: str = "It broke.", **more: Any) -> httpx.Response:
    return await client.post("/v1/programs/support/predict", json={"inputs": {"ticket": ticket}, **more})


async def test_a_pipeline_answers_with_its_outputs_and_its_steps(
    client: httpx.AsyncClient, node: Node
) -> None:
    node.script(URGENT)
    made = await make(client)
    version = made["version"]
    assert (version["module"], version["executor"]) == ("pipeline", "native")
    assert version["output_schema"]["properties"]["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert [step["name"] for step in version["pipeline"]["steps"]] == [
        "classify",
        "sentiment",
        "escalate",
        "reply",
    ]
    assert version["pipeline"]["steps"][3]["inputs"] == {
        "ticket": ["ticket"],
        "category": ["classify.category"],
    }
    answer = await predict(client)
    body = answer.json()
    assert answer.status_code == 200, body
    assert set(body["outputs"]) == {"answer", "sentiment", "note"}
    assert all(body["outputs"].values())
    assert "partial" not in body
    assert [(step["name"], step["status"]) for step in body["steps"]] == [
        ("classify", "completed"),
        ("sentiment", "completed"),
        ("escalate", "completed"),
        ("reply", "completed"),
    ]
    assert all(step["duration_ms"] > 0 and step["usage"]["total_tokens"] > 0 for step in body["steps"])
    assert body["usage"]["total_tokens"] == sum(step["usage"]["total_tokens"] for step in body["steps"])

    record = (await client.get(f"/v1/executions/{body['id']}")).json()
    steps = {step["name"]: step for step in record["steps"]}
    assert steps["classify"]["outputs"] == {"category": "bug", "urgency": 9}
    assert set(steps["escalate"]["outputs"]) == {"reasoning", "note"}
    asked = {call["step"]: call["messages"][-1]["content"] for call in record["trace"]}
    assert "[[ ## why ## ]]\nbug" in asked["escalate"]
    assert "[[ ## category ## ]]\nbug" in asked["reply"]
    (listed,) = (await client.get("/v1/executions")).json()["data"]
    assert listed["outputs"] == body["outputs"] and "steps" not in listed


async def test_a_step_whose_condition_does_not_hold_is_skipped(client: httpx.AsyncClient, node: Node) -> None:
    node.script(CALM)
    await make(client)
    body = (await predict(client)).json()
    assert body["outputs"]["note"] is None
    (skipped,) = [step for step in body["steps"] if step["status"] == "skipped"]
    assert (skipped["name"], skipped["reason"], skipped["usage"]) == (
        "escalate",
        "its condition does not hold",
        {},
    )


async def test_what_finished_before_a_step_failed_is_not_lost(client: httpx.AsyncClient, node: Node) -> None:
    node.script(URGENT, {"output": "answer", "text": "I would rather not."})
    await make(client)
    answer = await predict(client)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (503, "unusable_reply"), problem
    assert problem["detail"].startswith("Step 'reply': ")
    assert problem["error_type"] == "AdapterParseError"
    assert problem["partial"]["classify"] == {"category": "bug", "urgency": 9}
    assert {"classify", "sentiment"} <= set(problem["partial"])
    steps = {step["name"]: step for step in problem["steps"]}
    assert steps["reply"]["status"] == "failed"
    assert steps["reply"]["error"]["code"] == "unusable_reply"
    assert steps["reply"]["usage"]["total_tokens"] > 0
    record = (await client.get(f"/v1/executions/{problem['execution_id']}")).json()
    assert (record["status"], record["outputs"], record["partial"]) == ("failed", None, problem["partial"])
    # The next try asks the model for the failed step alone: the others' replies were good.
    node.script(URGENT)
    again = (await predict(client)).json()
    cached = {
        call["step"]: call["cache"]
        for call in (await client.get(f"/v1/executions/{again['id']}")).json()["trace"]
    }
    assert (cached["classify"], cached["sentiment"], cached["reply"]) == ("hit", "hit", "miss")


async def test_a_step_that_may_fail_is_gone_without(client: httpx.AsyncClient, node: Node) -> None:
    node.script(CALM, {"output": "sentiment", "fault": {"kind": "server_error"}, "times": 1})
    lenient = {**PIPELINE, "steps": [CLASSIFY, {**SENTIMENT, "on_failure": "skip"}, ESCALATE, REPLY]}
    await make(client, lenient)
    body = (await predict(client)).json()
    assert body["status"] == "completed"
    assert body["outputs"]["sentiment"] is None
    failed = next(step for step in body["steps"] if step["name"] == "sentiment")
    assert (failed["status"], failed["error"]["code"]) == ("failed", "lm_server_error")
    # An answer without it is not kept for those who may have it.
    again = (await predict(client)).json()
    assert again["outputs"]["sentiment"]
    third = await predict(client)
    assert third.headers["x-cache"] == "hit" and third.json()["outputs"] == again["outputs"]


async def test_a_reply_that_a_step_could_not_use_is_not_given_again(
    client: httpx.AsyncClient, node: Node
) -> None:
    node.script(CALM, {"output": "sentiment", "text": "I would rather not.", "times": 2})
    lenient = {**PIPELINE, "steps": [CLASSIFY, {**SENTIMENT, "on_failure": "skip"}, ESCALATE, REPLY]}
    await make(client, lenient)
    first, second = (await predict(client)).json(), (await predict(client)).json()
    assert first["outputs"]["sentiment"] is None
    assert second["outputs"]["sentiment"]


async def test_a_broken_constraint_fails_the_whole_when_it_should(
    client: httpx.AsyncClient, node: Node
) -> None:
    node.script({"output": "sure", "fields": {"sure": 1.5}, "times": 1})
    steps = [{"name": "one", "signature": "ticket -> sure: probability"}]
    pipeline = {"inputs": "ticket", "steps": steps, "outputs": {"sure": "one.sure"}}
    await make(client, pipeline, on_violation="fail")
    refused = await predict(client)
    assert (refused.status_code, refused.json()["code"]) == (503, "output_violation")
    assert refused.json()["partial"] == {"one": {"sure": 1.5}}
    assert (await predict(client)).status_code == 200


async def test_the_outputs_of_all_steps_together_have_a_limit(compiler_address: Path) -> None:
    small = SETTINGS.model_copy(update={"limits": Limits(output_bytes=1024)})
    node = Node(settings=small, compiler=ForkingCompiler(compiler_address))
    rules = [{"output": name, "fields": {name: "x" * 600}} for name in ("sentiment", "answer")]
    node.script(CALM, *rules)
    async with node.client(timeout=60) as client:
        await make(client)
        problem = (await predict(client)).json()
    assert (problem["status"], problem["code"]) == (503, "outputs_too_large")
    assert "all together" in problem["detail"]


async def test_an_answer_from_the_cache_ran_no_steps(client: httpx.AsyncClient) -> None:
    await make(client)
    first, second = await predict(client), await predict(client)
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert second.json()["outputs"] == first.json()["outputs"]
    assert "steps" not in second.json()


async def test_parameters_go_to_every_step(client: httpx.AsyncClient) -> None:
    await make(client)
    body = (await predict(client, parameters={"temperature": 0.25, "rollout_id": 3})).json()
    trace = (await client.get(f"/v1/executions/{body['id']}")).json()["trace"]
    assert {call["options"]["temperature"] for call in trace} == {0.25}
    refused = await predict(client, parameters={"top_k": 3})
    assert refused.status_code == 422


async def test_bad_inputs_are_refused_before_any_step(client: httpx.AsyncClient) -> None:
    await make(client)
    refused = await client.post("/v1/programs/support/predict", json={"inputs": {"tickets": 3}})
    assert refused.status_code == 422
    assert {one["pointer"] for one in refused.json()["errors"]} == {"/inputs/ticket", "/inputs/tickets"}


async def test_broken_constraints_of_any_step_are_reported(client: httpx.AsyncClient, node: Node) -> None:
    node.script({"output": "sure", "fields": {"sure": 1.5}}, {"output": "score", "fields": {"score": 7.0}})
    steps = [
        {"name": "one", "signature": "ticket -> sure: probability"},
        {"name": "two", "signature": "ticket, sure: float -> score: probability"},
    ]
    pipeline = {"inputs": "ticket", "steps": steps, "outputs": {"score": "two.score"}}
    await make(client, pipeline)
    body = (await predict(client)).json()
    assert [one["pointer"] for one in body["violations"]] == ["/outputs/score", "/steps/one/outputs/sure"]


async def test_a_mock_stands_for_the_whole(client: httpx.AsyncClient) -> None:
    await make(client, executor="mock", mock={"outputs": {"answer": "42"}})
    body = (await predict(client)).json()
    assert body["outputs"]["answer"] == "42"
    assert "steps" not in body


async def test_openapi_has_the_types_of_the_whole(client: httpx.AsyncClient) -> None:
    await make(client)
    document = (await client.get("/openapi.json")).json()
    path = document["paths"]["/v1/programs/support/predict"]["post"]
    schemas = document["components"]["schemas"]
    request = schemas[path["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]]
    assert request["properties"]["inputs"]["required"] == ["ticket"]
    answer = schemas[path["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]]
    assert list(answer["properties"]["outputs"]["properties"]) == ["answer", "sentiment", "note"]
    assert "StepSummary" in schemas and "PipelineEntry" in schemas


async def test_every_mistake_is_a_problem_with_its_place(client: httpx.AsyncClient) -> None:
    bad = {
        "inputs": "ticket",
        "steps": [
            {**CLASSIFY, "inputs": {"ticket": "reply.answer"}},
            {**REPLY, "when": "classify.urgency > 'x'"},
            {"name": "idle", "signature": "nothing -> x"},
        ],
        "outputs": {"answer": "reply.answr"},
    }
    refused = await client.post("/v1/programs", json={"name": "support", "pipeline": bad})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_pipeline")
    assert {(one["pointer"], one["code"]) for one in refused.json()["errors"]} == {
        ("/pipeline/steps/0", "cycle"),
        ("/pipeline/steps/1/when", "bad_condition"),
        ("/pipeline/steps/2/inputs/nothing", "unknown_field"),
        ("/pipeline/outputs/answer", "unknown_field"),
    }
    assert (await client.get("/v1/programs/support")).status_code == 404


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/signature"),
        ({"signature": "a -> b", "pipeline": PIPELINE}, "/pipeline"),
        ({"pipeline": PIPELINE, "module": "chain_of_thought"}, "/pipeline"),
        ({"pipeline": {**PIPELINE, "steps": []}}, "/pipeline/steps"),
        ({"pipeline": {**PIPELINE, "steps": [CLASSIFY] * 51}}, "/pipeline/steps"),
        ({"pipeline": {**PIPELINE, "steps": [{**CLASSIFY, "when": 3}]}}, "/pipeline/steps/0/when"),
        (
            {"pipeline": {**PIPELINE, "steps": [{**CLASSIFY, "state": "x"}, *PIPELINE["steps"][1:]]}},
            "/pipeline/steps/0/state",
        ),
        (
            {"pipeline": {**PIPELINE, "steps": [{**CLASSIFY, "model": "x"}, *PIPELINE["steps"][1:]]}},
            "/pipeline/steps/0/model",
        ),
        ({"pipeline": PIPELINE, "state": {"classify": {"demos": []}}}, "/state"),
        ({"pipeline": "x"}, "/pipeline"),
    ],
)
async def test_what_is_no_pipeline(client: httpx.AsyncClient, body: dict[str, Any], pointer: str) -> None:
    refused = await client.post("/v1/programs", json={"name": "support", **body})
    assert refused.status_code == 422, refused.text
    assert any(one["pointer"].startswith(pointer) for one in refused.json()["errors"]), refused.json()


async def test_a_pipeline_is_no_module_for_a_signature(client: httpx.AsyncClient) -> None:
    for path, body in (
        ("/v1/programs", {"name": "x", "signature": "a -> b", "module": "pipeline"}),
        ("/v1/predict", {"signature": "a -> b", "module": "pipeline", "inputs": {"a": "x"}}),
    ):
        assert (await client.post(path, json=body)).status_code == 422


async def test_a_step_that_is_not_native_is_named(client: httpx.AsyncClient) -> None:
    steps = [CLASSIFY, SENTIMENT, ESCALATE, {**REPLY, "options": {"logprobs": True}}]
    made = await client.post(
        "/v1/programs", json={"name": "support", "pipeline": {**PIPELINE, "steps": steps}, "deploy": True}
    )
    version = made.json()["version"]
    assert version["status"] == "error"
    assert version["error"].startswith("step 'reply': ")


def demos(saved: dict[str, Any], name: str, *rows: dict[str, Any]) -> dict[str, Any]:
    return {**saved, name: {**saved[name], "demos": list(rows)}}


async def test_versions_move_as_dspy_saves_them(client: httpx.AsyncClient) -> None:
    await make(client)
    saved = (await client.get("/v1/programs/support/export")).json()
    assert list(saved) == ["classify", "sentiment", "escalate.predict", "reply", "metadata"]

    better = demos(saved, "reply", {"ticket": "t", "category": "bug", "answer": "Sorry."})
    taken = await client.post("/v1/programs/support/import?deploy=true", json=better)
    assert (taken.status_code, taken.json()["status"]) == (201, "deployed"), taken.text
    difference = (await client.get("/v1/programs/support/diff?from=1&to=2")).json()
    changed = [one for one in difference["predictors"] if one["demos_added"]]
    assert [one["name"] for one in changed] == ["reply"]
    assert changed[0]["demos_added"][0]["answer"] == "Sorry."
    body = (await predict(client)).json()
    trace = (await client.get(f"/v1/executions/{body['id']}")).json()["trace"]
    reply = next(call for call in trace if call["step"] == "reply")
    assert any("Sorry." in message["content"] for message in reply["messages"])

    refused = await client.post("/v1/programs/support/import", json={"reply": better["reply"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_state")
    assert "'escalate.predict'" in refused.json()["detail"]


async def test_a_new_version_keeps_what_steps_learned(client: httpx.AsyncClient) -> None:
    await make(client)
    saved = (await client.get("/v1/programs/support/export")).json()
    learned = demos(demos(saved, "reply", {"answer": "A"}), "classify", {"category": "bug"})
    await client.post("/v1/programs/support/import?deploy=true", json=learned)
    steps = [
        {**CLASSIFY, "signature": "ticket -> category, urgency: int"},
        SENTIMENT,
        ESCALATE,
        {**REPLY, "when": "classify.urgency < 9"},
    ]
    changed = await client.post(
        "/v1/programs/support/versions", json={"pipeline": {**PIPELINE, "steps": steps}}
    )
    assert changed.status_code == 201, changed.text
    state = changed.json()["state"]
    assert state["reply"]["demos"] == [{"answer": "A"}]
    assert "classify" not in state
    refused = await client.post("/v1/programs/support/versions", json={"model": "simulator"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/model")
    plain = await client.post("/v1/programs/support/versions", json={"signature": "ticket -> answer"})
    assert (plain.status_code, plain.json()["module"], plain.json()["state"]) == (201, "predict", None)
    mocked = await client.post("/v1/programs/support/versions", json={"executor": "mock"})
    assert (mocked.status_code, mocked.json()["module"]) == (201, "pipeline")
    restored = await client.post("/v1/programs/support/versions", json={"state": saved})
    assert restored.json()["state"]["reply"]["demos"] == []


async def test_statistics_count_the_whole(client: httpx.AsyncClient, node: Node) -> None:
    node.script(URGENT)
    await make(client)
    await predict(client)
    node.script(URGENT, {"output": "answer", "text": "no"})
    await predict(client, "Another.")
    found = (await client.get("/v1/programs/support/stats")).json()
    assert (found["executions"], found["completed"], found["failed"]) == (2, 1, 1)


class Watcher:
    def __init__(self) -> None:
        self.told: list[Event] = []

    def tell(self, event: Event) -> None:
        self.told.append(event)


async def test_who_listens_is_told_of_steps_and_outputs(client: httpx.AsyncClient, node: Node) -> None:
    node.script(CALM)
    first = {
        **PIPELINE,
        "outputs": {
            "answer": ["escalate.note", "reply.answer"],
            "urgency": "classify.urgency",
            "s": "sentiment.sentiment",
        },
    }
    await make(client, first)
    watcher = Watcher()
    request = PredictionRequest(LOCAL_OPERATOR, "r", {"ticket": "It broke."}, 30, listener=watcher)
    execution = await node.services.predictions.program("support", request)
    changes = [(one.step, one.state) for one in watcher.told if isinstance(one, StepChanged)]
    assert changes[0] == ("classify", "started")
    assert changes.index(("sentiment", "started")) < changes.index(("sentiment", "completed"))
    assert ("escalate", "skipped") in changes and ("reply", "completed") in changes
    pieces = [one for one in watcher.told if isinstance(one, FieldDelta)]
    texts = {
        name: "".join(one.delta for one in pieces if one.name == name) for name in execution.outputs or {}
    }
    assert texts == {**(execution.outputs or {}), "urgency": "1"}
    # What may come from either of two steps is told at the end, and is no step's.
    assert {one.name: one.step for one in pieces} == {
        "answer": None,
        "urgency": "classify",
        "s": "sentiment",
    }


async def test_outputs_are_streamed_while_steps_write_them(client: httpx.AsyncClient, node: Node) -> None:
    node.script(URGENT, {"output": "sentiment", "fields": {"sentiment": "calm and patient " * 20}})
    await make(client)
    body = {"inputs": {"ticket": "It broke."}}
    headers = {"accept": "text/event-stream"}
    answer = await client.post("/v1/programs/support/predict", json=body, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [event.split("\n") for event in answer.text.strip().split("\n\n") if "event: " in event]
    told = [
        (lines[1].removeprefix("event: "), json.loads(lines[2].removeprefix("data: ")))
        for lines in events
        if len(lines) == 3
    ]
    steps = [(one["step"], one["state"]) for kind, one in told if kind == "step"]
    assert ("classify", "started") in steps and ("reply", "completed") in steps
    (result,) = [one for kind, one in told if kind == "result"]
    for name, step in (("sentiment", "sentiment"), ("answer", "reply"), ("note", "escalate")):
        text = "".join(one["delta"] for kind, one in told if kind == "field" and one["name"] == name)
        assert text == result["outputs"][name]
        assert {one["step"] for kind, one in told if kind == "field" and one["name"] == name} == {step}
    assert {step["name"] for step in result["steps"]} == {"classify", "sentiment", "escalate", "reply"}
    # What stays inside is told with its step, not as a field.
    assert "category" not in {one["name"] for kind, one in told if kind == "field"}


async def test_a_stream_takes_back_what_a_step_told_that_failed(
    client: httpx.AsyncClient, node: Node
) -> None:
    half = "[[ ## sentiment ## ]]\nso calm"
    two = {"name": "two", "signature": "ticket -> sentiment, more", "on_failure": "skip"}
    pipeline = {
        "inputs": "ticket",
        "steps": [CLASSIFY, two],
        "outputs": {"s": "two.sentiment", "c": "classify.category"},
    }
    node.script(CALM, {"output": "sentiment", "text": half})
    await make(client, pipeline)
    watcher = Watcher()
    request = PredictionRequest(LOCAL_OPERATOR, "r", {"ticket": "It broke."}, 30, listener=watcher)
    execution = await node.services.predictions.program("support", request)
    assert execution.outputs == {"s": None, "c": "question"}
    told: dict[str, str] = {}
    for one in watcher.told:
        if isinstance(one, FieldDelta):
            told[one.name] = told.get(one.name, "") + one.delta
        elif isinstance(one, StatusChanged) and one.restarted:
            told = {name: text for name, text in told.items() if one.step is not None and name != "s"}
    assert told == {"c": '"question"'}
