"""Whatever is sent, the answer is a problem document of the right kind that says what to do."""

import json
from typing import Any

import httpx
import pytest
import pytest_asyncio

from dspex.configuration.settings import Limits, Settings
from tests.interfaces.node import TestNode, mock_program

JSON = {"content-type": "application/json"}


# No request here leaves anything behind that another one would notice; to make a node takes 0.3 s.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> Any:
    node = TestNode(Settings(log_level="error", limits=Limits(body_bytes=4096, input_bytes=2048)))
    async with node.client() as client:
        await mock_program(client, signature="question: str, k: int = 3 -> answer")
        yield client


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["status"], document["code"]) == (status, status, code)
    assert document["type"] == f"urn:dspex:problem:{code}"
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


POSTS = ("/v1/programs/qa/predict", "/v1/predict", "/v1/programs", "/v1/signatures")


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{not json", JSON, 400, "not_json"),
        (b"", JSON, 400, "not_json"),
        (b'{"a": NaN}', JSON, 400, "not_json"),
        (b'{"a": "\xff"}', JSON, 400, "not_json"),
        (b"[1, 2]", JSON, 422, "not_an_object"),
        (b'{"a": 1}', {"content-type": "text/plain"}, 415, "not_application_json"),
        (b'{"a": 1}', {}, 415, "not_application_json"),
        (b'{"a": "' + b"x" * 5000 + b'"}', JSON, 413, "body_too_large"),
        (b'{"inputs": ' + b"[" * 300 + b"]" * 300 + b"}", JSON, 422, "nested_too_deeply"),
    ],
)
async def test_a_body_that_is_no_request(
    client: httpx.AsyncClient, path: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await client.post(path, content=body, headers=headers)
    if body == b"" and path in ("/v1/programs", "/v1/signatures"):
        problem(answer, 422, "bad_request")
    else:
        problem(answer, status, code)


async def test_a_prediction_of_the_wrong_form_lists_every_mistake(client: httpx.AsyncClient) -> None:
    body = {"inputs": [], "use_cache": "yes", "timeout_s": 0, "session_id": "a\nb", "nonsense": 1}
    found = problem(await client.post("/v1/programs/qa/predict", json=body), 422, "bad_request")
    assert {one["pointer"] for one in found["errors"]} == {
        "/inputs",
        "/use_cache",
        "/timeout_s",
        "/session_id",
        "/nonsense",
    }


async def test_bad_inputs_are_told_all_at_once(client: httpx.AsyncClient) -> None:
    body = {"inputs": {"k": "three", "extra~/": 1}}
    found = problem(await client.post("/v1/programs/qa/predict", json=body), 422, "invalid_inputs")
    assert {one["pointer"]: one["code"] for one in found["errors"]} == {
        "/inputs/question": "missing",
        "/inputs/k": "wrong_type",
        "/inputs/extra~0~1": "unexpected",
    }


async def test_bad_parameters(client: httpx.AsyncClient) -> None:
    body = {"inputs": {"question": "?"}, "parameters": {"temperature": 3, "api_key": "x"}}
    found = problem(await client.post("/v1/programs/qa/predict", json=body), 422, "invalid_parameters")
    assert {one["pointer"] for one in found["errors"]} == {"/parameters/temperature", "/parameters/api_key"}
    body["parameters"] = {"temprature": 1, "api_key": "x"}
    found = problem(await client.post("/v1/programs/qa/predict", json=body), 422, "invalid_parameters")
    assert [one["message"] for one in found["errors"]] == [
        "there is no such parameter here; did you mean 'temperature'?",
        "there is no such parameter here; leave it out",
    ]


async def test_an_input_beside_inputs_is_told_where_it_goes(client: httpx.AsyncClient) -> None:
    async def told(name: str) -> list[str]:
        body = {"question": "?", "nonsense": 1}
        answer = await client.post(f"/v1/programs/{name}/predict", json=body)
        return [one["message"] for one in problem(answer, 422, "bad_request")["errors"]]

    nothing = "there is no such member here; leave it out"
    assert await told("qa") == [
        'is an input of the program: put it under `inputs`, {"inputs": {…}}',
        nothing,
    ]
    assert await told("absent") == [nothing, nothing]


@pytest.mark.parametrize(
    ("path", "body", "meant"),
    [
        ("/v1/programs/qa/predict", {"inputs": {}, "time_out_s": 1}, "timeout_s"),
        ("/v1/programs/qa/predict", {"inputs": {}, "cache": {"mode": "on", "max_ages": 1}}, "max_age_s"),
        ("/v1/predict", {"program": "qa", "input": {}, "metdata": {}}, "metadata"),
        ("/v1/batches", {"program": "qa", "inputs": [{}], "concurency": 1}, "concurrency"),
        ("/v1/datasets", {"name": "x", "rows": [], "descripton": ""}, "description"),
    ],
)
async def test_a_misspelt_member_is_answered_with_the_one_that_was_meant(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], meant: str
) -> None:
    found = problem(await client.post(path, json=body), 422, "bad_request")
    assert f"there is no such member here; did you mean {meant!r}?" in [
        one["message"] for one in found["errors"]
    ]


async def test_inputs_over_their_limit(client: httpx.AsyncClient) -> None:
    body = {"inputs": {"question": "x" * 3000}}
    problem(await client.post("/v1/programs/qa/predict", json=body), 413, "inputs_too_large")


@pytest.mark.parametrize("name", ["nobody", "%00", "a%2Fb", "%20", "x" * 300])
async def test_an_unknown_program(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post(f"/v1/programs/{name}/predict", json={"inputs": {}})
    assert answer.status_code == 404
    answer = await client.post("/v1/predict", json={"program": "nobody", "inputs": {}})
    problem(answer, 404, "program_missing")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/program"),
        ({"program": "qa", "signature": "a -> b"}, "/signature"),
        ({"program": "qa", "module": "predict"}, "/module"),
        ({"signature": "a -> b", "version": 1}, "/version"),
        ({"signature": 5}, "/signature"),
    ],
)
async def test_a_prediction_that_does_not_say_what_to_run(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    found = problem(await client.post("/v1/predict", json=body), 422, "bad_request")
    assert [one["pointer"] for one in found["errors"]] == [pointer]


@pytest.mark.parametrize("signature", ["question -> answer: wat", "question", "a -> a", "-> b", "a, a -> b"])
async def test_a_malformed_signature_says_where(client: httpx.AsyncClient, signature: str) -> None:
    body = {"signature": signature, "inputs": {}}
    found = problem(await client.post("/v1/predict", json=body), 422, "bad_signature")
    assert "at character" in found["detail"] and "^" in found["detail"]
    assert [one["pointer"] for one in found["errors"]] == ["/signature"]


async def test_without_a_compiler_an_unseen_signature_is_unavailable(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/predict", json={"input": "hello"})
    problem(answer, 503, "no_compiler")


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/programs/", "/v1/programs/qa/fly", "/v1/predict/"])
async def test_an_address_where_nothing_is(client: httpx.AsyncClient, path: str) -> None:
    problem(await client.get(path), 404, "no_route")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/predict", "POST"),
        ("PUT", "/v1/programs/qa/predict", "POST"),
        ("DELETE", "/v1/programs/qa", "GET"),
        ("POST", "/health", "GET"),
    ],
)
async def test_a_method_that_is_not_taken(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await client.request(method, path)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("limit=0&cursor=", {"/query/limit", "/query/cursor"}),
        ("limit=1000&status=done&sort=name", {"/query/limit", "/query/status", "/query/sort"}),
        ("since=yesterday&until=1", {"/query/since", "/query/until"}),
        ("since=0001-01-01T00:00:00%2B05:00", {"/query/since"}),
        ("program=%00&version=99999999999", {"/query/program", "/query/version"}),
        ("limt=5", {"/query/limt"}),
    ],
)
async def test_bad_query_parameters(client: httpx.AsyncClient, query: str, pointers: set[str]) -> None:
    found = problem(await client.get(f"/v1/executions?{query}"), 422, "bad_request")
    assert {one["pointer"] for one in found["errors"]} == pointers


@pytest.mark.parametrize("cursor", ["x", "bnVsbA", "WyIAIl0", "eyJhIjoxfQ", "é"])
async def test_a_cursor_that_is_not_ours(client: httpx.AsyncClient, cursor: str) -> None:
    problem(await client.get("/v1/programs", params={"cursor": cursor}), 400, "bad_cursor")


@pytest.mark.parametrize("execution_id", ["1", "%00", "019A", "00000000-0000-7000-8000-000000000000"])
async def test_an_unknown_execution(client: httpx.AsyncClient, execution_id: str) -> None:
    problem(await client.get(f"/v1/executions/{execution_id}"), 404, "execution_missing")


async def test_a_scripted_fault_is_an_execution_on_record(client: httpx.AsyncClient) -> None:
    fault = {"kind": "exhausted", "message": "slow down", "retry_after": 2.5}
    await mock_program(client, "broken", mock={"rules": [{"fault": fault}]})
    answer = await client.post("/v1/programs/broken/predict", json={"inputs": {"question": "?"}})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    document = answer.json()
    assert (document["kind"], document["retry_after"]) == ("exhausted", 2.5)
    stored = (await client.get(f"/v1/executions/{document['execution_id']}")).json()
    assert (stored["status"], stored["error"]["message"]) == ("failed", "slow down")


async def test_too_slow_is_a_timeout(client: httpx.AsyncClient) -> None:
    await mock_program(client, "slow", mock={"latency_ms": 60_000})
    body = {"inputs": {"question": "?"}, "timeout_s": 0.01}
    answer = await client.post("/v1/programs/slow/predict", json=body)
    assert (answer.status_code, answer.json()["kind"]) == (504, "timeout")


async def test_a_database_that_is_away_is_unavailable_and_comes_back() -> None:
    node = TestNode()
    async with node.client() as client:
        await mock_program(client)
        body = {"inputs": {"question": "?"}}
        node.switch.away = True
        for answer in (
            await client.get("/v1/programs"),
            await client.get("/v1/executions"),
            await client.post("/v1/programs/qa/predict", json=body),
        ):
            assert answer.headers["retry-after"] == "1"
            problem(answer, 503, "database_unavailable")
        assert (await client.get("/health")).status_code == 200
        ready = await client.get("/ready")
        assert ready.status_code == 503
        assert ready.json()["checks"] == [
            {"name": "database", "ok": False, "detail": "The database does not answer."}
        ]
        node.switch.away = False
        assert (await client.post("/v1/programs/qa/predict", json=body)).status_code == 200
        assert (await client.get("/ready")).json()["status"] == "ready"


async def test_a_defect_is_told_as_one_without_its_details(monkeypatch: pytest.MonkeyPatch) -> None:
    node = TestNode()

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(node.executions, "list", broken)
    monkeypatch.setattr(node.executions, "record", broken)
    async with node.client() as client:
        await mock_program(client)
        for answer in (
            await client.get("/v1/executions"),
            await client.post("/v1/programs/qa/predict", json={"inputs": {"question": "?"}}),
        ):
            found = problem(answer, 500, "internal")
            assert "secret" not in json.dumps(found)
