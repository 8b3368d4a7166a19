"""The addresses of a dspy-cli project: bodies are refused in FastAPI's very words."""

from collections.abc import AsyncIterator
from typing import Any, Literal

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from pydantic import create_model

from dspex.configuration.dspy_cli.project import TAKEN, DspyCli
from dspex.configuration.settings import ProgramEntry, Settings
from dspex.interfaces.rest.callers import PUBLIC
from dspex.interfaces.rest.fastapi_routes import create_framework
from tests.interfaces.node import TestNode, mock_program

SIGNATURE = {
    "inputs": [
        {"name": "text", "type": "str"},
        {"name": "length", "type": "Literal['short', 'long']"},
        {"name": "times", "type": "int"},
        {"name": "share", "type": "float"},
        {"name": "loud", "type": "bool"},
        {"name": "tags", "type": "list[str]"},
        {"name": "tone", "type": "str | None", "default": None},
    ],
    "outputs": [{"name": "answer", "type": "str"}],
}
FITTING = {"text": "a", "length": "short", "times": 2, "share": 0.5, "loud": True, "tags": ["x"]}
JSON = {"content-type": "application/json"}


# To make a node takes 0.3 s.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    entries = (ProgramEntry(name="Ask", signature="question -> answer", model="simulator"),)
    node = TestNode(Settings(log_level="error", dspy_cli=DspyCli(programs=("Ask", "Gone")), programs=entries))
    async with node.client() as client:
        await mock_program(client, "Ask", signature=SIGNATURE, mock={"outputs": {"answer": "yes"}})
        await mock_program(client, "Other")
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theirs() -> AsyncIterator[httpx.AsyncClient]:
    """The application that dspy-cli would make."""
    form: Any = create_model(
        "AskRequest",
        text=(str, ...),
        length=(Literal["short", "long"], ...),
        times=(int, ...),
        share=(float, ...),
        loud=(bool, ...),
        tags=(list[str], ...),
        tone=(str | None, None),
    )
    app = FastAPI()

    async def run(request: form) -> dict[str, Any]:  # type: ignore[valid-type]
        return {"answer": "yes"}

    app.add_api_route("/Ask", run, methods=["POST"], response_model=dict[str, Any])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        yield client


@pytest.mark.parametrize(
    "body",
    [
        FITTING,
        {**FITTING, "tone": None, "unknown": {"is": "left out"}},
        {**FITTING, "times": "3", "share": "0.25", "loud": "yes"},
        {},
        {**FITTING, "text": 5, "length": "medium"},
        {**FITTING, "times": 1.5, "share": "much", "loud": 7, "tags": ["x", 1, None]},
        {**FITTING, "tags": {"x": 1}, "tone": 3},
        {**FITTING, "text": None},
        [1],
        "text",
        None,
        5,
    ],
)
async def test_a_body_is_read_as_fastapi_reads_it(
    client: httpx.AsyncClient, theirs: httpx.AsyncClient, body: Any
) -> None:
    ours, expected = await client.post("/Ask", json=body), await theirs.post("/Ask", json=body)
    assert (ours.status_code, ours.json()) == (expected.status_code, expected.json())


@pytest.mark.parametrize(
    "body", [b"", b"{", b"not json", b'{"text": "a",}', b'{"text": NaN}', b"\xff", b"[" * 5000]
)
async def test_what_is_no_json_is_said_as_fastapi_says_it(
    client: httpx.AsyncClient, theirs: httpx.AsyncClient, body: bytes
) -> None:
    ours = await client.post("/Ask", content=body, headers=JSON)
    assert ours.status_code == 422
    if body in (b"", b"{", b"not json", b'{"text": "a",}'):
        assert ours.json() == (await theirs.post("/Ask", content=body, headers=JSON)).json()


async def test_a_form_of_a_browser_runs_nothing(client: httpx.AsyncClient, theirs: httpx.AsyncClient) -> None:
    plain = {"content-type": "text/plain"}
    ours = await client.post("/Ask", content=b'{"text": "a"}', headers=plain)
    expected = await theirs.post("/Ask", content=b'{"text": "a"}', headers=plain)
    assert (ours.status_code, ours.json()) == (expected.status_code, expected.json())


async def test_an_answer_is_the_outputs_alone_and_on_record(client: httpx.AsyncClient) -> None:
    answer = await client.post("/Ask", json={**FITTING, "times": "3"})
    assert answer.json() == {"answer": "yes"}
    record = (await client.get(f"/v1/executions/{answer.headers['x-execution-id']}")).json()
    assert record["inputs"] == {**FITTING, "times": 3, "tone": None}


async def test_the_list_of_programs(client: httpx.AsyncClient) -> None:
    listed = await client.get("/programs")
    assert listed.json() == {"programs": [{"name": "Ask", "model": "simulator", "endpoint": "/Ask"}]}


async def test_only_what_the_project_has_is_there(client: httpx.AsyncClient) -> None:
    for path, method, status in (
        ("/Other", "POST", 404),
        ("/Gone", "POST", 404),
        ("/Ask", "GET", 405),
        ("/programs", "POST", 405),
        ("/ask", "POST", 404),
        ("/Ask/", "POST", 404),
    ):
        answer = await client.request(method, path, json={})
        assert answer.status_code == status, path
        assert isinstance(answer.json()["detail"], str)


async def test_bodies_have_bounds(client: httpx.AsyncClient) -> None:
    large = await client.post("/Ask", json={"text": "a" * 3_000_000})
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
    for body in (b"[" * 300 + b"]" * 300, b'{"a":' * 300 + b"1" + b"}" * 300):
        deep = await client.post("/Ask", content=body, headers=JSON)
        assert deep.status_code == 422, deep.text


async def test_its_document_has_the_programs_with_their_types(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert "/Other" not in paths
    form = paths["/Ask"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert form["properties"]["length"] == {"enum": ["short", "long"]}
    assert paths["/programs"]["get"]["operationId"] == "list_programs_of_dspy_cli"


async def test_without_a_project_there_are_no_such_addresses() -> None:
    async with TestNode().client() as client:
        await mock_program(client, "Ask")
        assert (await client.post("/Ask", json={"question": "?"})).json()["code"] == "no_route"
        assert (await client.get("/programs")).json()["code"] == "no_route"


async def test_no_program_hides_an_address_of_ours() -> None:
    framework = create_framework(TestNode().services)
    paths = PUBLIC | {path for _, path in framework.state.scopes}
    names = {path[1:] for path in paths if path[1:].isidentifier()}
    assert {*names, "metrics", "programs"} == TAKEN
