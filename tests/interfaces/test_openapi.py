"""The OpenAPI document: what it says is what happens, whatever a machine makes of it."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.interfaces.node import TestNode, mock_program

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
            (media,) = content.values()
            found: dict[str, Any] = schemas[media["schema"]["$ref"].rpartition("/")[2]]
            return found

        request = at(operation["requestBody"]["content"])
        assert request["required"] == ["inputs"]
        assert request["properties"]["inputs"]["required"] == ["message"]
        answer = at(operation["responses"]["200"]["content"])["properties"]["outputs"]
        assert list(answer["properties"]) == ["reasoning", "team", "sure"]
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


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A node on a socket, in a thread of its own."""
    started, stop = threading.Event(), threading.Event()
    found: list[int] = []

    async def serve() -> None:
        node = TestNode()
        async with node.serving() as port:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                await mock_program(client, "qa")
                await mock_program(client, "triage", signature=TYPED, module="chain_of_thought")
                await client.post("/v1/signatures", json={"name": "qa", "signature": "question -> answer"})
                await client.post("/v1/programs/qa/predict", json={"inputs": {"question": "?"}})
            found.append(port)
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(20)
    yield f"http://127.0.0.1:{found[0]}"
    stop.set()
    thread.join(20)


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    allow_header_conformance,
]
KNOWN = {"name": "qa", "number": 1, "version": 1}
BOUNDED = settings(
    max_examples=15,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


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

        # An operation that takes nothing can't be given anything wrong.
        with suppress(Unsatisfiable):
            once()

    with requests.Session() as session:
        for operation in operations:
            for mode in GenerationMode:
                try_out(operation.as_strategy(generation_mode=mode))
            if "{" in operation.path:
                known = {name: value for name, value in KNOWN.items() if f"{{{name}}}" in operation.path}
                try_out(operation.as_strategy(path_parameters=known))
    assert len(operations) > 25
    # Both sides of every door were tried.
    assert answered[200] > 50 and answered[201] > 0 and answered[404] > 100 and answered[422] > 100, answered
