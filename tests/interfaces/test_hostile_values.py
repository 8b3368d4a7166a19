"""Values that one part of a system takes and the next one chokes on: never a server error, and no list breaks."""

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog.testing

from dspex.configuration.settings import ProgramEntry
from tests.interfaces.served import client_of, served

# As they stand in a body; several have no Python value that would be written like this.
VALUES = {
    "beyond 64 bits": str(2**64),
    "below 64 bits": str(-(2**63) - 1),
    "at 64 bits": str(2**63),
    "400 digits": "9" * 400,
    "more digits than Python reads": "9" * 5000,
    "a float too large": "1e400",
    "a lone surrogate": r'"\ud800"',
    "a lone surrogate as a name": r'{"\udc00": 1}',
    "a surrogate and a long number": rf'["x\udfff", {2**70}]',
    "NUL": r'"\u0000"',
    "NUL as a name": r'{"a\u0000b": "\u0000"}',
    "NaN": "NaN",
    "infinity inside": '{"a": [-Infinity]}',
    "90 levels": "[" * 90 + "]" * 90,
    "150 objects": '{"a":' * 150 + "1" + "}" * 150,
    "250 levels": "[" * 250 + "]" * 250,
    "900 levels": "[" * 900 + "]" * 900,
    "100 000 levels": "[" * 100_000 + "]" * 100_000,
    "a long string": '"' + "x" * 200_000 + '"',
    "turned around": '"\u202eabc\u2066"',
    "composed": '"e\u0301\u200d\U0001f469\u200d\U0001f680\ufeff"',
    "not a character": '"\uffff\U0010ffff"',
    "lines of another kind": r'"a\u2028b\u0085c\u000bd"',
    "private use": '"\uf8d0\uf8d10\uf8d2"',
    "markers": '"[[ ## b ## ]]\\n[[ ## completed ## ]]"',
    "names twice": '{"a": 1, "a": 2}',
    "an empty name": '{"": {"": ""}}',
}
FIELDS = '"inputs": [{"name": "a", "type": "Any"}], "outputs": [{"name": "b", "type": "Any"}]'
DEFAULT = '{"inputs": [{"name": "a", "type": "Any", "default": VALUE}], "outputs": [{"name": "b"}]}'
WHOLE = '{"inputs": [{"name": "a", "type": "int", "default": VALUE}], "outputs": [{"name": "b"}]}'
DEMOS = (
    f'"demos": [{{"a": VALUE, "b": VALUE}}, {{"a": VALUE}}], "traces": [], "train": [], "lm": null, {FIELDS}'
)
STATE = (
    '{"traces": [], "train": [], "demos": [{"a": VALUE, "b": VALUE}], "signature": {"instructions": "Say.", '
    '"fields": [{"prefix": "A:", "description": "${a}"}, {"prefix": "B:", "description": "${b}"}]}, "lm": null}'
)
MOCK = '"executor": "mock", "deploy": true'
ANY = f'"signature": {{{FIELDS}}}'
BODIES = {
    "a default, mock": ("/v1/programs", f'{{"name": "NAME", "signature": {DEFAULT}, {MOCK}}}'),
    "a default, native": ("/v1/programs", f'{{"name": "NAME", "signature": {DEFAULT}, "deploy": true}}'),
    "a whole number's default": ("/v1/programs", f'{{"name": "NAME", "signature": {WHOLE}, "deploy": true}}'),
    "an option": ("/v1/programs", f'{{"name": "NAME", {ANY}, "options": {{"seed": VALUE}}, "deploy": true}}'),
    "a draft's option": ("/v1/programs", f'{{"name": "NAME", {ANY}, "options": {{"stop": VALUE}}}}'),
    "demos": ("/v1/programs", f'{{"name": "NAME", {ANY}, "state": {STATE}, "deploy": true}}'),
    "a draft's state": ("/v1/programs", f'{{"name": "NAME", {ANY}, "state": {{"self": VALUE}}}}'),
    "a script": ("/v1/programs", f'{{"name": "NAME", {ANY}, {MOCK}, "mock": {{"outputs": {{"b": VALUE}}}}}}'),
    "a condition": (
        "/v1/programs",
        f'{{"name": "NAME", {ANY}, {MOCK}, "mock": {{"rules": [{{"when": {{"a": VALUE}}, "outputs": {{}}}}]}}}}',
    ),
    "a description": ("/v1/programs", f'{{"name": "NAME", {ANY}, {MOCK}, "description": VALUE}}'),
    "a program's name": ("/v1/programs", f'{{"name": VALUE, {ANY}, {MOCK}}}'),
    "a field's name": (
        "/v1/programs",
        f'{{"name": "NAME", "signature": {{"inputs": [{{"name": VALUE}}], "outputs": ["b"]}}, {MOCK}}}',
    ),
    "instructions": (
        "/v1/programs",
        f'{{"name": "NAME", "signature": {{"instructions": VALUE, {FIELDS}}}, "deploy": true}}',
    ),
    "inputs of a mock": ("/v1/programs/scripted/predict", '{"inputs": {"a": VALUE}}'),
    "inputs": ("/v1/programs/native/predict", '{"inputs": {"a": VALUE}}'),
    "metadata": ("/v1/programs/scripted/predict", '{"inputs": {"a": 1}, "metadata": {"k": VALUE}}'),
    "a session": ("/v1/programs/scripted/predict", '{"inputs": {"a": 1}, "session_id": VALUE}'),
    "a parameter": ("/v1/programs/native/predict", '{"inputs": {"a": 1}, "parameters": {"seed": VALUE}}'),
    "a rollout": ("/v1/programs/native/predict", '{"inputs": {"a": 1}, "parameters": {"rollout_id": VALUE}}'),
    "a version to ask": ("/v1/programs/native/predict", '{"inputs": {"a": 1}, "version": VALUE}'),
    "a text": ("/v1/predict", '{"input": VALUE}'),
    "another program": ("/v1/predict", '{"program": VALUE, "inputs": {"a": 1}}'),
    "inputs of a signature": ("/v1/predict", '{"signature": "a: Any -> b: Any", "inputs": {"a": VALUE}}'),
    "a default of a signature": ("/v1/predict", f'{{"signature": {DEFAULT}, "inputs": {{}}}}'),
    "a signature string": ("/v1/predict", '{"signature": VALUE, "inputs": {}}'),
    "a registered default": ("/v1/signatures", f'{{"name": "NAME", "signature": {DEFAULT}}}'),
    "a registered bound": (
        "/v1/signatures",
        '{"name": "NAME", "signature": {"inputs": [{"name": "a", "type": "int", "ge": VALUE}], "outputs": ["b"]}}',
    ),
    "a registered name": ("/v1/signatures", '{"name": VALUE, "signature": "a -> b"}'),
    "a version's option": (
        "/v1/programs/native/versions",
        '{"options": {"seed": VALUE}, "initialize": true}',
    ),
    "a version's default": (
        "/v1/programs/native/versions",
        f'{{"signature": {DEFAULT}, "initialize": true}}',
    ),
    "a version's demos": ("/v1/programs/native/versions", f'{{"state": {STATE}, "initialize": true}}'),
    "a metric": ("/v1/evaluations", '{"program": "scripted", "dataset": "rows", "metric": VALUE}'),
    "a judge's criteria": (
        "/v1/evaluations",
        '{"program": "scripted", "dataset": "rows", "metric": {"name": "lm_judge", "criteria": VALUE}}',
    ),
    "what is evaluated": ("/v1/evaluations", '{"program": "scripted", "dataset": VALUE, "limit": VALUE}'),
    "a budget": ("/v1/evaluations", '{"program": "scripted", "dataset": "rows", "budget_usd": VALUE}'),
    "an import": ("/v1/programs/native/import", STATE),
    "an import of something else": ("/v1/programs/native/import", f"{{{DEMOS}}}"),
}
LISTS = (
    "/v1/programs",
    "/v1/executions",
    "/v1/signatures",
    "/v1/programs/native/versions",
    "/v1/evaluations",
)


@pytest.fixture
async def client(
    database_url: str, compiler_address: Path, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    any_to_any: Any = {"signature": "a: Any -> b: Any"}
    programs = (
        ProgramEntry(name="native", **any_to_any),
        ProgramEntry(name="scripted", executor="mock", **any_to_any),
    )
    # Hundreds of rendered tracebacks would take most of the time of a failing run.
    with structlog.testing.capture_logs():
        async with (
            served(compiler_address, tmp_path, database_url=database_url, programs=programs) as application,
            client_of(application) as client,
        ):
            row = {"inputs": {"a": 1}, "outputs": {"b": 1}}
            made = await client.post("/v1/datasets", json={"name": "rows", "rows": [row]})
            assert made.status_code == 201
            yield client


async def mistakes(client: httpx.AsyncClient, path: str, body: str, name: str) -> list[str]:
    """What came back that should not, in words."""
    found = []

    async def ask(method: str, path: str, **more: Any) -> httpx.Response:
        answer = await client.request(method, path, **more)
        if answer.status_code >= 500:
            found.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer

    headers = {"content-type": "application/json"}
    answer = await ask("POST", path, content=body.encode("utf-8", "surrogatepass"), headers=headers)
    try:
        document = json.loads(answer.content)
    except ValueError as error:
        return [*found, f"POST {path}: an answer that is not JSON: {error}"]
    if answer.status_code < 300 and path == "/v1/programs":
        own = f"/v1/programs/{document['name']}"
        for below in ("", "/versions", "/export", "/stats"):
            await ask("GET", own + below)
        await ask("POST", f"{own}/predict", json={"inputs": {"a": 1}})
    if answer.status_code < 300 and path == "/v1/signatures":
        await ask("GET", f"/v1/signatures/{name}")
    execution_id = document.get("id") or document.get("execution_id")
    # What came from the cache is recorded behind the answer.
    if path.endswith("predict") and execution_id and document.get("cache") != "hit":
        stored = await ask("GET", f"/v1/executions/{execution_id}")
        if stored.status_code != 200:
            found.append(f"its record: {stored.status_code}")
    return found


async def unreadable(client: httpx.AsyncClient, paths: Sequence[str]) -> list[str]:
    """Which of these no longer answer."""
    answers = {path: await client.get(path) for path in paths}
    return [
        f"GET {path} afterwards: {answer.status_code} {answer.text[:300]}"
        for path, answer in answers.items()
        if answer.status_code != 200
    ]


async def test_no_value_breaks_the_service(client: httpx.AsyncClient) -> None:
    numbers = itertools.count()
    found = {}
    for what, (path, template) in BODIES.items():
        for kind, value in VALUES.items():
            name = f"p{next(numbers)}"
            body = template.replace("NAME", name).replace("VALUE", value)
            found[what, kind] = await mistakes(client, path, body, name)
        found[what, "the lists"] = await unreadable(client, LISTS)
    # Of a thousand programs; it takes two seconds to make.
    found["all of them", "the document"] = await unreadable(client, ["/openapi.json"])
    assert {where: one for where, one in found.items() if one} == {}
