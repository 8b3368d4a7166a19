"""The OpenAPI document: what it says is what happens, whatever a machine makes of it."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dspex.configuration.settings import ProgramEntry
from dspex.interfaces.rest.app import RestApplication
from dspex.interfaces.rest.problems import status_of
from tests.interfaces.node import TestNode, mock_program, on_a_socket
from tests.interfaces.served import client_of, served

TYPED = {
    "instructions": "Sort.",
    "inputs": [{"name": "message"}, {"name": "k", "type": "int", "default": 3, "ge": 1}],
    "outputs": [{"name": "team", "type": "Literal['a', 'b']"}, {"name": "sure", "type": "probability"}],
}


async def test_each_program_has_a_path_of_its_own() -> None:
    async with TestNode().client() as client:
        bare = (await client.get("/openapi.json")).json()
        assert bare["openapi"] == "3.1.0" and "/v1/programs/tri.age/predict" not in bare["paths"]
        await mock_program(client, "tri.age", signature=TYPED, module="chain_of_thought")
        document = (await client.get("/openapi.json")).json()
        operation = document["paths"]["/v1/programs/tri.age/predict"]["post"]
        schemas = document["components"]["schemas"]

        def at(content: dict[str, Any]) -> dict[str, Any]:
            (media,) = [one for kind, one in content.items() if kind != "text/event-stream"]
            found: dict[str, Any] = schemas[media["schema"]["$ref"].rpartition("/")[2]]
            return found

        request = at(operation["requestBody"]["content"])
        assert request["required"] == ["inputs"]
        assert request["properties"]["inputs"]["required"] == ["message"]
        answer = at(operation["responses"]["200"]["content"])["properties"]["outputs"]
        assert list(answer["properties"]) == ["reasoning", "team", "sure"]
        assert "text/event-stream" in operation["responses"]["200"]["content"]
        assert at(operation["responses"]["default"]["content"])["title"] == "Problem"
        ids = [one["operationId"] for path in document["paths"].values() for one in path.values()]
        assert len(ids) == len(set(ids))

        await client.post("/v1/programs/tri.age/archive")
        gone = (await client.get("/openapi.json")).json()
        assert "/v1/programs/tri.age/predict" not in gone["paths"]


async def test_the_document_holds_together() -> None:
    async with TestNode().client() as client:
        await mock_program(client)
        document = (await client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            value = list(value.values())
        if isinstance(value, list):
            for one in value:
                yield from references(one)

    for reference in set(references(document)):
        assert reference.removeprefix("#/components/schemas/") in schemas, reference
    for path, item in document["paths"].items():
        for operation in item.values():
            assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"], path


@asynccontextmanager
async def served_for_real(
    request: pytest.FixtureRequest,
) -> AsyncIterator[tuple[RestApplication, httpx.AsyncClient]]:
    """As it is served: a database, the real compiler, the simulator."""
    directory = request.getfixturevalue("tmp_path_factory").mktemp("node")
    programs = (
        ProgramEntry(name="triage", signature=TYPED, module="chain_of_thought"),
        ProgramEntry(name="scripted", signature="question -> answer", executor="mock"),
    )
    compiler = request.getfixturevalue("compiler_address")
    async with (
        served(compiler, directory, programs=programs) as application,
        client_of(application) as client,
    ):
        body = {"name": "qa", "signature": "question -> answer", "deploy": True}
        assert (await client.post("/v1/programs", json=body)).status_code == 201
        yield application, client


@pytest.fixture(scope="module")
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """A node on a socket, in a thread of its own."""
    started, stop = threading.Event(), threading.Event()
    found: list[int] = []

    async def serve() -> None:
        async with served_for_real(request) as (application, client):
            await client.post("/v1/signatures", json={"name": "qa", "signature": "question -> answer"})
            answer = await client.post("/v1/programs/qa/predict", json={"inputs": {"question": "?"}})
            assert answer.status_code == 200, answer.text
            async with on_a_socket(application) as port:
                found.append(port)
                started.set()
                await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    # Fixtures that make other fixtures are for this thread.
    for name in ("compiler_address", "tmp_path_factory"):
        request.getfixturevalue(name)
    thread.start()
    assert started.wait(30)
    yield f"http://127.0.0.1:{found[0]}"
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    allow_header_conformance,
]
KNOWN = {"name": "qa", "number": 1, "version": 1}
BOUNDED = settings(
    max_examples=10,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def check_status(case: schemathesis.Case, answer: schemathesis.Response) -> None:
    """Every operation describes a `default` answer, so this is said here: which statuses may be among them."""
    status = answer.status_code
    if str(status) in case.operation.definition.raw["responses"]:
        return
    problem = answer.json()
    assert answer.headers["content-type"] == ["application/problem+json"], (status, problem)
    assert status == problem["status"] == status_of(problem["kind"], problem["code"]), problem
    asked: Mapping[str, Any] = case.body if isinstance(case.body, dict) else {}
    expected: set[str] = set()
    if "timeout_s" in asked:
        expected |= {"timeout", "lm_timeout", "compile_timeout"}
    if "max_tokens" in asked.get("parameters", {}):
        # The model stops in the middle of a word.
        expected.add("unusable_reply")
    assert status < 500 or problem["code"] in expected, problem


def test_no_generated_request_finds_a_defect_or_an_undescribed_answer(address: str) -> None:
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = sorted(
        (found.ok() for found in schema.get_all_operations()), key=lambda one: one.path.endswith("/archive")
    )
    answered: Counter[int] = Counter()

    def try_out(strategy: SearchStrategy[schemathesis.Case]) -> None:
        @BOUNDED
        @given(case=strategy)
        def once(case: schemathesis.Case) -> None:
            answer = case.call(session=session)
            answered[answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS)
            check_status(case, answer)

        once()

    with requests.Session() as session:
        for operation in operations:
            try_out(operation.as_strategy())
            # What takes nothing but names can't be given anything wrong; looking for it takes a thousand tries.
            if operation.body or operation.query:
                try_out(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
            if "{" in operation.path:
                known = {name: value for name, value in KNOWN.items() if f"{{{name}}}" in operation.path}
                try_out(operation.as_strategy(path_parameters=known))
    assert len(operations) > 25
    # Both sides of every door were tried.
    assert answered[200] > 50 and answered[201] > 0 and answered[404] > 100 and answered[422] > 100, answered
