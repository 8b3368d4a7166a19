"""Programs over HTTP: registered, moved through their lifecycle, versioned, compared, moved out and in."""

from typing import Any

import httpx
import pytest

from tests.interfaces.node import Refusing, TestNode, mock_program


@pytest.fixture
def node() -> TestNode:
    return TestNode()


@pytest.fixture
async def client(node: TestNode) -> Any:
    async with node.client() as client:
        yield client


async def test_a_new_program_is_a_draft_until_it_is_initialized_and_deployed(
    client: httpx.AsyncClient,
) -> None:
    body = {"name": "qa", "signature": "question -> answer", "executor": "mock", "description": "answers"}
    made = await client.post("/v1/programs", json=body)
    assert (made.status_code, made.headers["location"]) == (201, "/v1/programs/qa")
    document = made.json()
    assert (document["status"], document["deployed_version"], document["source"]) == ("draft", None, "api")
    assert document["version"]["input_schema"]["required"] == ["question"]
    assert document["created_at"].endswith("Z")

    refused = await client.post("/v1/programs/qa/predict", json={"inputs": {"question": "?"}})
    assert (refused.status_code, refused.json()["code"]) == (409, "not_executable")
    assert "draft" in refused.json()["detail"]
    early = await client.post("/v1/programs/qa/deploy")
    assert (early.status_code, early.json()["code"]) == (409, "not_executable")

    ready = await client.post("/v1/programs/qa/initialize")
    assert (ready.status_code, ready.json()["status"], ready.json()["executor"]) == (200, "ready", "mock")
    again = await client.post("/v1/programs/qa/initialize")
    assert (again.status_code, again.json()["code"]) == (409, "illegal_transition")
    deployed = await client.post("/v1/programs/qa/deploy", json={"version": 1})
    assert (deployed.json()["status"], deployed.json()["deployed_version"]) == ("deployed", 1)
    answer = await client.post("/v1/programs/qa/predict", json={"inputs": {"question": "?"}})
    assert answer.status_code == 200 and set(answer.json()["outputs"]) == {"answer"}


async def test_one_call_can_do_all_of_it(client: httpx.AsyncClient) -> None:
    document = await mock_program(client, module="chain_of_thought")
    assert (document["status"], document["deployed_version"]) == ("deployed", 1)
    assert list(document["version"]["output_schema"]["properties"]) == ["reasoning", "answer"]


async def test_a_refused_program_says_why() -> None:
    async with TestNode(compiler=Refusing()).client() as client:
        made = await client.post(
            "/v1/programs", json={"name": "qa", "signature": "question -> answer", "deploy": True}
        )
        assert made.status_code == 201
        assert (made.json()["status"], made.json()["version"]["error"]) == (
            "error",
            "this signature is too strange",
        )
        tried = await client.post("/v1/programs/qa/initialize")
        assert (tried.status_code, tried.json()["code"]) == (422, "not_native")
        assert "too strange" in tried.json()["detail"]
        used = await client.post("/v1/programs/qa/predict", json={"inputs": {"question": "?"}})
        assert used.status_code == 409 and "too strange" in used.json()["detail"]


async def test_without_a_compiler_initializing_is_unavailable_and_can_be_tried_again(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/v1/programs", json={"name": "qa", "signature": "question -> answer"})
    for _ in range(2):
        tried = await client.post("/v1/programs/qa/initialize")
        assert (tried.status_code, tried.json()["code"]) == (503, "no_compiler")
    assert (await client.get("/v1/programs/qa")).json()["status"] == "error"


async def test_every_bad_field_of_a_new_program_is_told_at_once(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/programs",
        json={
            "name": "no spaces",
            "signature": 3,
            "module": "reactor",
            "temperature": True,
            "description": "a\x00b",
            "sise": 1,
        },
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    pointers = {one["pointer"] for one in answer.json()["errors"]}
    assert pointers == {"/name", "/signature", "/module", "/temperature", "/description", "/sise"}


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"signature": "question -> answer: wat"}, "/signature", "bad_signature"),
        (
            {"signature": {"inputs": [{"name": "q"}], "outputs": [{}]}},
            "/signature/outputs/0/name",
            "bad_signature",
        ),
        ({"signature": "a -> b", "model": "nobody"}, "/model", "unknown_model"),
        ({"signature": "a -> b", "mock": {}}, "/mock", "bad_request"),
    ],
)
async def test_a_bad_definition_points_at_its_mistake(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str, code: str
) -> None:
    answer = await client.post("/v1/programs", json={"name": "qa", **body})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


async def test_a_bad_mock_script_is_refused_when_it_is_given(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/programs",
        json={"name": "qa", "signature": "a -> b", "executor": "mock", "mock": {"latency_ms": -1}},
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_mock")


async def test_no_key_becomes_part_of_a_version(client: httpx.AsyncClient) -> None:
    new = {"name": "qa", "signature": "question -> answer"}
    state = {"demos": [], "signature": {"instructions": "", "fields": []}, "lm": {"api_key": "hush"}}
    refused = await client.post("/v1/programs", json={**new, "options": {"api_key": "hush"}})
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_option")
    assert (await client.post("/v1/programs", json={**new, "state": state})).status_code == 201
    for body in ({"options": {"api_key": "hush"}}, {"options": {"api_key": "hush"}, "model": "simulator"}):
        refused = await client.post("/v1/programs/qa/versions", json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_option")
    again = await client.post("/v1/programs/qa/versions", json={"state": state, "temperature": 0.5})
    assert (again.status_code, again.json()["state"]["lm"]) == (201, None)
    assert "hush" not in (await client.get("/v1/programs/qa/versions")).text


async def test_a_name_is_taken_once(client: httpx.AsyncClient) -> None:
    await mock_program(client)
    answer = await client.post("/v1/programs", json={"name": "qa", "signature": "a -> b"})
    assert (answer.status_code, answer.json()["code"]) == (409, "program_exists")


async def test_lists_are_paged_and_leave_archived_programs_out(client: httpx.AsyncClient) -> None:
    for name in ("a", "b", "c"):
        await mock_program(client, name)
    await client.post("/v1/programs/b/archive")
    first = (await client.get("/v1/programs", params={"limit": 1})).json()
    second = (await client.get("/v1/programs", params={"limit": 1, "cursor": first["next_cursor"]})).json()
    assert [one["name"] for one in first["data"] + second["data"]] == ["a", "c"]
    assert second["next_cursor"] is None
    all_of_them = (await client.get("/v1/programs", params={"include_archived": True})).json()["data"]
    assert [(one["name"], one["status"]) for one in all_of_them][1] == ("b", "archived")


async def test_an_archived_program_answers_nothing_and_stays(client: httpx.AsyncClient) -> None:
    await mock_program(client)
    assert (await client.post("/v1/programs/qa/archive")).json()["status"] == "archived"
    for path in ("predict", "deploy", "initialize", "rollback", "archive"):
        answer = await client.post(f"/v1/programs/qa/{path}", json={})
        assert answer.status_code == 409, path
        assert "archived" in answer.json()["detail"], path
    assert (await client.post("/v1/programs/qa/versions", json={})).json()["code"] == "program_archived"


async def test_a_new_version_changes_what_is_said_and_keeps_the_rest(client: httpx.AsyncClient) -> None:
    await mock_program(client, temperature=0.5)
    body = {"mock": {"outputs": {"answer": "two"}}, "deploy": True}
    made = await client.post("/v1/programs/qa/versions", json=body)
    assert (made.status_code, made.headers["location"]) == (201, "/v1/programs/qa/versions/2")
    assert made.json()["options"] == {"temperature": 0.5}
    assert made.json()["status"] == "deployed"
    same = await client.post("/v1/programs/qa/versions", json=body)
    assert (same.status_code, same.json()["version"]) == (200, 2)
    answer = await client.post("/v1/programs/qa/predict", json={"inputs": {"question": "?"}})
    assert (answer.json()["version"], answer.json()["outputs"]) == (2, {"answer": "two"})
    old = await client.post("/v1/programs/qa/predict", json={"inputs": {"question": "?"}, "version": 1})
    assert old.json()["version"] == 1 and old.json()["outputs"] != {"answer": "two"}

    listed = (await client.get("/v1/programs/qa/versions", params={"limit": 1})).json()
    rest = (
        await client.get("/v1/programs/qa/versions", params={"limit": 1, "cursor": listed["next_cursor"]})
    ).json()
    assert [one["version"] for one in listed["data"] + rest["data"]] == [2, 1]
    assert (await client.get("/v1/programs/qa/versions/1")).json()["status"] == "ready"

    back = await client.post("/v1/programs/qa/rollback")
    assert back.json()["deployed_version"] == 1
    nothing = await client.post("/v1/programs/qa/rollback")
    assert (nothing.status_code, nothing.json()["code"]) == (409, "nothing_to_roll_back")


async def test_a_comparison_tells_instructions_demos_fields_and_settings(client: httpx.AsyncClient) -> None:
    def state(instructions: str, *demos: str) -> dict[str, Any]:
        shown = [{"question": one, "answer": one} for one in demos]
        return {"demos": shown, "signature": {"instructions": instructions, "fields": []}, "lm": None}

    await client.post(
        "/v1/programs",
        json={"name": "qa", "signature": "question -> answer", "state": state("Be short.", "a", "b")},
    )
    changes = {
        "signature": "question -> answer: int",
        "adapter": "json",
        "temperature": 1.0,
        "state": state("Be long.", "b", "c"),
    }
    assert (await client.post("/v1/programs/qa/versions", json=changes)).status_code == 201
    found = (await client.get("/v1/programs/qa/diff", params={"from": 1, "to": 2})).json()
    (predictor,) = found["predictors"]
    assert predictor["name"] == "self"
    assert (predictor["instructions"]["before"], predictor["instructions"]["after"]) == (
        "Be short.",
        "Be long.",
    )
    assert predictor["demos_added"] == [{"question": "c", "answer": "c"}]
    assert predictor["demos_removed"] == [{"question": "a", "answer": "a"}]
    assert predictor["demos_kept"] == 1
    assert [one["what"] for one in found["signature"]] == ["/outputs/answer"]
    assert {one["what"] for one in found["settings"]} == {"adapter", "options"}
    assert not found["same"]
    assert (await client.get("/v1/programs/qa/diff", params={"from": 1, "to": 1})).json()["same"]


async def test_what_dspy_did_not_save_is_no_import(client: httpx.AsyncClient) -> None:
    await client.post("/v1/programs", json={"name": "qa", "signature": "question -> answer"})
    answer = await client.post("/v1/programs/qa/import", json={"hello": 1})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_state")


async def test_a_failed_import_leaves_no_version_and_is_not_what_gets_deployed() -> None:
    async with TestNode(compiler=Refusing()).client() as client:
        await mock_program(client)
        real = await client.post("/v1/programs/qa/versions", json={"executor": "auto"})
        state = {"demos": [], "signature": {"instructions": "", "fields": []}, "lm": None}
        mocked = await client.post("/v1/programs/qa/import", json=state, params={"base": 1})
        assert (mocked.status_code, mocked.json()["code"]) == (409, "not_with_mock")
        base = {"base": real.json()["version"]}
        failed = await client.post("/v1/programs/qa/import", json=state, params=base)
        assert (failed.status_code, failed.json()["code"]) == (422, "bad_state")
        assert (await client.get("/v1/programs/qa/versions")).json()["data"][0]["version"] == 2
        misshapen = await client.post(
            "/v1/programs/qa/import", json={**state, "signature": None}, params=base
        )
        assert (misshapen.status_code, misshapen.json()["code"]) == (422, "bad_state")
        assert [one["pointer"] for one in misshapen.json()["errors"]] == ["/signature"]
        assert (await client.post("/v1/programs/qa/deploy")).json()["deployed_version"] == 1


async def test_the_description_follows_the_newest_version_of_a_program_that_is_not_deployed(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/v1/programs", json={"name": "qa", "signature": "question -> answer"})
    assert '"verdict"' not in (await client.get("/openapi.json")).text
    await client.post("/v1/programs/qa/versions", json={"signature": "question -> verdict"})
    assert '"verdict"' in (await client.get("/openapi.json")).text


async def test_statistics_count_what_ran(client: httpx.AsyncClient) -> None:
    await mock_program(client)
    await client.post("/v1/programs/qa/predict", json={"inputs": {"question": "?"}})
    found = (await client.get("/v1/programs/qa/stats", params={"version": 1})).json()
    assert (found["executions"], found["success_rate"], found["version"]) == (1, 1.0, 1)
    none = (await client.get("/v1/programs/qa/stats", params={"until": "2020-01-01"})).json()
    assert none["executions"] == 0 and none["success_rate"] is None


@pytest.mark.parametrize("name", ["nobody", "no%00body", "no%20body", "%F0%9F%98%80"])
@pytest.mark.parametrize("path", ["", "/versions", "/versions/1", "/export", "/stats", "/diff?from=1&to=2"])
async def test_an_unknown_program_is_missing_everywhere(
    client: httpx.AsyncClient, name: str, path: str
) -> None:
    answer = await client.get(f"/v1/programs/{name}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "program_missing")


async def test_an_unknown_version_is_missing(client: httpx.AsyncClient) -> None:
    await mock_program(client)
    answer = await client.get("/v1/programs/qa/versions/7")
    assert (answer.status_code, answer.json()["code"]) == (404, "version_missing")
    used = await client.post("/v1/programs/qa/predict", json={"inputs": {"question": "?"}, "version": 7})
    assert (used.status_code, used.json()["code"]) == (404, "version_missing")
    no_number = await client.get("/v1/programs/qa/versions/first")
    assert [one["pointer"] for one in no_number.json()["errors"]] == ["/path/number"]
