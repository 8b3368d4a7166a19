"""Every operation of the OpenAPI document: without a key, with each role, and with a key of another project.

A new route without a line here fails.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, get_args

import httpx
import pytest

from dspex.access.records import Role
from dspex.access.rules import rights
from dspex.configuration.dspy_cli.project import DspyCli
from dspex.interfaces.rest.callers import PUBLIC
from tests.interfaces.keyed import client_with, key_for, keyed_node
from tests.interfaces.node import TestNode, mock_program
from tests.making import optimization

SIGNATURE = "question -> answer"
DRAFT = {"name": "mine", "signature": SIGNATURE}
OPTIMIZATION = {"program": "hidden", "dataset": "hidden"}
EXAMPLE = {"inputs": {"question": "hidden?"}, "outputs": {"answer": "no"}}


@dataclass(frozen=True)
class Door:
    """What an operation needs, and a request that is about something of the other project."""

    scope: str | None
    body: Any = None
    query: dict[str, str] = field(default_factory=dict)
    # What somebody of another project gets: nothing of that name, or a document without a trace of it.
    foreign: int = 404


DOORS = {
    "GET /": Door(None, foreign=200),
    "GET /health": Door(None, foreign=200),
    "GET /ready": Door(None, foreign=200),
    "GET /config": Door("config:read", foreign=200),
    "GET /costs": Door("costs:read", foreign=200),
    "POST /v1/predict": Door("programs:run", {"program": "hidden", "inputs": {"question": "?"}}),
    "POST /v1/programs/{name}/predict": Door("programs:run", {"inputs": {"question": "?"}}),
    "GET /v1/programs": Door("programs:read", query={"include_archived": "true"}, foreign=200),
    "POST /v1/programs": Door("programs:write", DRAFT, foreign=201),
    "GET /v1/programs/{name}": Door("programs:read"),
    "POST /v1/programs/{name}/initialize": Door("programs:write"),
    "POST /v1/programs/{name}/deploy": Door("programs:write", {"version": 1}),
    "POST /v1/programs/{name}/gates": Door("programs:write", {"min_score": 0.5}),
    "POST /v1/programs/{name}/rollback": Door("programs:write"),
    "POST /v1/programs/{name}/archive": Door("programs:write"),
    "GET /v1/programs/{name}/versions": Door("programs:read"),
    "POST /v1/programs/{name}/versions": Door("programs:write", {"module": "chain_of_thought"}),
    "GET /v1/programs/{name}/versions/{number}": Door("programs:read"),
    "GET /v1/programs/{name}/diff": Door("programs:read", query={"from": "1", "to": "1"}),
    "GET /v1/programs/{name}/stats": Door("costs:read"),
    "GET /v1/programs/{name}/export": Door("programs:read"),
    "POST /v1/programs/{name}/import": Door("programs:write", {"predict": {}}),
    "GET /v1/pools": Door("pools:read", foreign=200),
    "POST /v1/pools/{name}/recycle": Door("pools:write"),
    "POST /v1/modules/validate": Door("programs:code", {"module": "nowhere:Module"}, foreign=200),
    "GET /v1/signatures": Door("signatures:read", foreign=200),
    "POST /v1/signatures": Door("signatures:write", DRAFT, foreign=201),
    "POST /v1/signatures/validate": Door("signatures:read", {"signature": SIGNATURE}, foreign=200),
    "GET /v1/signatures/{name}": Door("signatures:read"),
    "POST /v1/signatures/{name}/versions/{version}/activate": Door("signatures:write"),
    "POST /v1/signatures/{name}/versions/{version}/deprecate": Door("signatures:write"),
    "GET /v1/executions": Door("executions:read", foreign=200),
    "GET /v1/executions/{execution_id}": Door("executions:read"),
    "POST /v1/executions/{execution_id}/cancel": Door("programs:run"),
    "GET /v1/executions/{execution_id}/feedback": Door("executions:read"),
    "POST /v1/executions/{execution_id}/feedback": Door("feedback:write", {"score": 1.0}),
    "GET /v1/datasets": Door("datasets:read", foreign=200),
    "POST /v1/datasets": Door("datasets:write", {"name": "mine", "rows": [EXAMPLE]}, foreign=201),
    "POST /v1/datasets/from-executions": Door("datasets:write", {"name": "mine", "program": "hidden"}),
    "GET /v1/datasets/{name}": Door("datasets:read"),
    "GET /v1/datasets/{name}/versions": Door("datasets:read"),
    "GET /v1/datasets/{name}/rows": Door("datasets:read"),
    "GET /v1/datasets/{name}/export": Door("datasets:read"),
    "POST /v1/datasets/{name}/validate": Door("datasets:read", {"signature": SIGNATURE}),
    "POST /v1/datasets/{name}/sample": Door("datasets:read", {"count": 1}),
    "POST /v1/datasets/{name}/split": Door("datasets:write", {"ratios": {"training": 0.5, "test": 0.5}}),
    "GET /v1/datasets/{name}/statistics": Door("datasets:read"),
    "DELETE /v1/datasets/{name}/rows/{row_id}": Door("datasets:write"),
    "DELETE /v1/datasets/{name}": Door("datasets:write"),
    "POST /v1/evaluations": Door("evaluations:write", {"program": "hidden", "dataset": "hidden"}),
    "GET /v1/evaluations": Door("evaluations:read", foreign=200),
    "GET /v1/evaluations/compare": Door(
        "evaluations:read", query={"a": "{evaluation_id}", "b": "{evaluation_id}"}
    ),
    "GET /v1/evaluations/compare/examples": Door(
        "evaluations:read", query={"a": "{evaluation_id}", "b": "{evaluation_id}"}
    ),
    "GET /v1/evaluations/{evaluation_id}": Door("evaluations:read"),
    "GET /v1/evaluations/{evaluation_id}/results": Door("evaluations:read"),
    "GET /v1/evaluations/{evaluation_id}/events": Door("evaluations:read"),
    "POST /v1/evaluations/{evaluation_id}/cancel": Door("evaluations:write"),
    "DELETE /v1/evaluations/{evaluation_id}": Door("evaluations:write"),
    "POST /v1/batches": Door("programs:run", {"program": "hidden", "inputs": [{"question": "?"}]}),
    "GET /v1/batches": Door("executions:read", foreign=200),
    "GET /v1/batches/{batch_id}": Door("executions:read"),
    "GET /v1/batches/{batch_id}/results": Door("executions:read"),
    "POST /v1/batches/{batch_id}/cancel": Door("programs:run"),
    "GET /v1/datasets/{name}/rows/{row_id}/uses": Door("datasets:read"),
    "GET /v1/optimizations": Door("optimizations:read", foreign=200),
    "POST /v1/optimizations": Door("optimizations:write", OPTIMIZATION),
    "POST /v1/optimizations/estimate": Door("optimizations:write", OPTIMIZATION),
    "GET /v1/optimizations/{optimization_id}": Door("optimizations:read"),
    "GET /v1/optimizations/{optimization_id}/events": Door("optimizations:read"),
    "POST /v1/optimizations/{optimization_id}/cancel": Door("optimizations:write"),
    "POST /v1/optimizations/{optimization_id}/pause": Door("optimizations:write"),
    "POST /v1/optimizations/{optimization_id}/resume": Door("optimizations:write"),
    "POST /v1/optimizations/{optimization_id}/keep": Door("optimizations:write"),
    "GET /v1/jobs": Door("jobs:read", foreign=200),
    "GET /v1/jobs/{job_id}": Door("jobs:read"),
    "POST /v1/jobs/{job_id}/cancel": Door("jobs:write"),
    "POST /v1/jobs/{job_id}/pause": Door("jobs:write"),
    "POST /v1/jobs/{job_id}/resume": Door("jobs:write"),
    "POST /v1/jobs/{job_id}/retry": Door("jobs:write"),
    # Queues belong to all projects.
    "GET /v1/queues": Door("queues:read", foreign=200),
    "POST /v1/queues/{name}/pause": Door("queues:write"),
    "POST /v1/queues/{name}/resume": Door("queues:write"),
    "GET /v1/executions/{execution_id}/events": Door("executions:read"),
    "POST /v1/keys": Door("keys:write", {"name": "mine"}, foreign=201),
    "GET /v1/keys": Door("keys:read", foreign=200),
    "GET /v1/keys/{key_id}": Door("keys:read"),
    "POST /v1/keys/{key_id}/rotate": Door("keys:write"),
    "POST /v1/keys/{key_id}/revoke": Door("keys:write"),
    "GET /v1/audit": Door("audit:read", foreign=200),
    "GET /v1/declarations": Door("programs:read", foreign=200),
    "GET /v1/budgets": Door("budgets:read", foreign=200),
    "GET /v1/analytics": Door("analytics:read", query={"metric": "duration_ms"}, foreign=200),
    "GET /v1/analytics/summary": Door("analytics:read", foreign=200),
    "GET /v1/alerts": Door("analytics:read", foreign=200),
    # Models belong to all projects; this one to none.
    "POST /v1/embeddings": Door("embeddings:run", {"model": "nowhere", "input": "hidden?"}),
    "GET /v1/cache": Door("cache:read", foreign=200),
    "POST /v1/cache/clear": Door("cache:write", foreign=200),
    # Models belong to all projects; this one to none.
    "GET /v1/breakers": Door("breakers:read", foreign=200),
    "POST /v1/breakers/{model}/open": Door("breakers:write"),
    "POST /v1/breakers/{model}/close": Door("breakers:write"),
    "POST /v1/breakers/{model}/reset": Door("breakers:write"),
    # Of a dspy-cli project.
    "GET /programs": Door("programs:read", foreign=200),
}
# In no document.
UNLISTED = {
    "GET /openapi.json": Door("programs:read", foreign=200),
    "GET /docs": Door("programs:read", foreign=307),
    # In that of the project it belongs to, which is not one of the two here.
    "POST /Declared": Door("programs:run", {"question": "?"}),
}
ALL = DOORS | UNLISTED
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass
class Street:
    """A node with two projects; `names` are of things in the project `theirs`, which has `hidden` all over."""

    node: TestNode
    keys: dict[str, str]
    names: dict[str, str]

    async def knock(self, door: str, key: str | None, **names: str) -> httpx.Response:
        method, _, path = door.partition(" ")
        given = ALL[door]
        known = {**self.names, **names}
        place = path.format(**known)
        query = {name: value.format(**known) for name, value in given.query.items()}
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        body = given.body
        if door == "POST /v1/embeddings":
            body = {**body, "model": names.get("model", body["model"])}
        async with self.node.client(headers=headers) as client:
            return await client.request(method, place, json=body, params=query)


@pytest.fixture
async def street() -> AsyncIterator[Street]:
    node = keyed_node(dspy_cli=DspyCli(programs=("Declared",)))
    theirs = await key_for(node, project="theirs")
    async with client_with(node, theirs) as client:
        await mock_program(client, "hidden", description="hidden")
        made = await client.post("/v1/signatures", json={"name": "hidden", "signature": SIGNATURE})
        assert made.status_code == 201
        body = {"inputs": {"question": "hidden?"}, "session_id": "hidden"}
        execution = (await client.post("/v1/programs/hidden/predict", json=body)).json()
        key = (await client.post("/v1/keys", json={"name": "hidden"})).json()
        made = await client.post("/v1/datasets", json={"name": "hidden", "rows": [EXAMPLE]})
        assert made.status_code == 201
        row = (await client.get("/v1/datasets/hidden/rows")).json()["data"][0]
        evaluation = (await client.post("/v1/evaluations", json=DOORS["POST /v1/evaluations"].body)).json()
        batch = (await client.post("/v1/batches", json=DOORS["POST /v1/batches"].body)).json()
    optimized, job = optimization(project="theirs", program="hidden")
    await node.optimizations.add(optimized, job)
    keys = {role: await key_for(node, role, "ours") for role in ROLES}
    names = {"name": "hidden", "number": "1", "version": "1", "model": "nowhere"}
    names |= {
        "batch_id": batch["id"],
        "job_id": batch["id"],
        "row_id": row["id"],
        "optimization_id": optimized.id,
    }
    names |= {"evaluation_id": evaluation["id"]}
    yield Street(node, keys, {**names, "execution_id": execution["id"], "key_id": key["id"]})


async def test_every_operation_has_its_line_here(street: Street) -> None:
    async with client_with(street.node, street.keys["admin"]) as client:
        document = (await client.get("/openapi.json")).json()
    listed = {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    assert listed.keys() == DOORS.keys()
    assert {door.partition(" ")[2] for door, given in ALL.items() if given.scope is None} == PUBLIC
    for door, operation in listed.items():
        scope = DOORS[door].scope
        expected = None if scope is None else [{"bearer": [scope]}, {"x-api-key": [scope]}]
        assert operation.get("security") == expected, door
    assert document["components"]["securitySchemes"].keys() == {"bearer", "x-api-key"}


async def test_without_a_key_nothing_is_done(street: Street) -> None:
    for door, given in ALL.items():
        answer = await street.knock(door, None)
        if given.scope is None:
            assert answer.status_code == 200, door
            continue
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), door
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_may_do_what_its_scopes_say_and_nothing_else(street: Street, role: Role) -> None:
    for door, given in ALL.items():
        answer = await street.knock(door, street.keys[role])
        if given.scope is None or given.scope in rights(role, None) or role == "admin":
            assert answer.status_code not in (401, 403), (door, answer.text)
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing"), door
            assert given.scope in answer.json()["detail"]


async def test_a_key_of_another_project_finds_nothing(street: Street) -> None:
    unknown = {
        "name": "absent",
        "execution_id": "01a1fded-f723-763b-be61-cfc4cc3f7883",
        "key_id": "absentabsent",
        "batch_id": "absent",
        "evaluation_id": "absent",
        "optimization_id": "absent",
        "job_id": "absent",
        "row_id": "absent",
        "model": "elsewhere",
    }
    # The audit log first: later it tells what this very test has asked for.
    for door, given in sorted(ALL.items(), key=lambda one: one[0] != "GET /v1/audit"):
        answer = await street.knock(door, street.keys["admin"])
        assert answer.status_code == given.foreign, (door, answer.text)
        if answer.status_code != 404:
            assert not any(name in answer.text for name in _traces(street)), door
            continue
        # What is there and not ours, and what is nowhere, look the same but for the name that was asked for.
        if given.body and given.body.get("program") == "hidden":
            async with client_with(street.node, street.keys["admin"]) as client:
                absent = await client.post(door[5:], json={**given.body, "program": "absent"})
        else:
            absent = await street.knock(door, street.keys["admin"], **unknown)
        assert _without(answer, street.names) == _without(absent, unknown), door


def _traces(street: Street) -> list[str]:
    return ["hidden", street.names["execution_id"], street.names["key_id"], street.names["batch_id"]]


def _without(answer: httpx.Response, names: dict[str, str]) -> dict[str, Any]:
    text = answer.text
    for name in names.values():
        text = text.replace(repr(name), "...")
    return {**json.loads(text), "request_id": None}


async def test_metrics_are_of_all_projects_and_for_admins_and_monitors(street: Street) -> None:
    monitor = await key_for(street.node, "admin", "ours", scopes=frozenset({"metrics:read"}))
    wanted = {None: 401, "caller": 403, "read-only": 403, "developer": 403, "admin": 200}
    for role, status in wanted.items():
        async with street.node.client(
            headers={} if role is None else {"x-api-key": street.keys[role]}
        ) as client:
            assert (await client.get("/metrics")).status_code == status, role
    async with client_with(street.node, monitor) as client:
        assert "dspy_predictions_total" in (await client.get("/metrics")).text
        assert (await client.get("/v1/programs")).status_code == 403


async def test_only_an_admin_clears_what_all_projects_keep(street: Street) -> None:
    for role, status in (("developer", 403), ("admin", 200)):
        async with client_with(street.node, street.keys[role]) as client:
            answer = await client.post("/v1/cache/clear", json={"all_projects": True})
            assert answer.status_code == status, role


@pytest.mark.parametrize("role", ROLES)
async def test_only_an_admin_sees_how_busy_all_projects_are(street: Street, role: Role) -> None:
    async with client_with(street.node, street.keys[role]) as client:
        assert (await client.get("/v1/cache")).status_code == (200 if role == "admin" else 403)
        listed = (await client.get("/v1/breakers")).json().get("data", [])
        assert all(("lanes" in one) == (role == "admin") for one in listed)
        assert bool(listed) == (role != "caller")


async def test_an_admin_acts_in_another_project_by_name_and_nobody_else_does(street: Street) -> None:
    async with client_with(street.node, street.keys["admin"], **{"x-dspex-project": "theirs"}) as client:
        assert (await client.get("/v1/programs/hidden")).status_code == 200
        assert "/v1/programs/hidden/predict" in (await client.get("/openapi.json")).json()["paths"]
        made = (await client.post("/v1/keys", json={"name": "made"})).json()
        assert made["project"] == "theirs"
    for role in ("developer", "caller", "read-only"):
        for project, status in (("theirs", 403), ("ours", 200)):
            key = street.keys[role]
            async with client_with(street.node, key, **{"x-dspex-project": project}) as client:
                answer = await client.get("/v1/programs")
                assert answer.status_code == status, role
                assert status == 200 or answer.json()["code"] == "other_project"
    async with client_with(street.node, street.keys["admin"], **{"x-dspex-project": "no name"}) as client:
        assert (await client.get("/v1/programs")).json()["code"] == "bad_project"


async def test_names_and_idempotency_keys_repeat_in_projects_and_mean_other_things(street: Street) -> None:
    async with client_with(street.node, street.keys["developer"]) as client:
        await mock_program(client, "hidden", mock={"outputs": {"answer": "ours"}})
        body = {"inputs": {"question": "hidden?"}}
        once = {"idempotency-key": "once"}
        answer = await client.post("/v1/programs/hidden/predict", json=body, headers=once)
        assert answer.json()["outputs"] == {"answer": "ours"}
        stats = (await client.get("/v1/programs/hidden/stats")).json()
        assert stats["executions"] == 1
        assert [one["program"] for one in (await client.get("/costs")).json()["data"]] == ["hidden"]
    theirs = await key_for(street.node, project="theirs")
    async with client_with(street.node, theirs) as client:
        again = await client.post("/v1/programs/hidden/predict", json={"inputs": {}}, headers=once)
        assert again.json()["code"] == "invalid_inputs"


async def test_a_cursor_of_one_project_leads_nowhere_in_another(street: Street) -> None:
    theirs = await key_for(street.node, project="theirs")
    async with client_with(street.node, theirs) as client:
        cursor = (await client.get("/v1/keys", params={"limit": 1})).json()["next_cursor"]
    async with client_with(street.node, street.keys["admin"]) as client:
        page = (await client.get("/v1/keys", params={"limit": 200, "cursor": cursor})).json()
    assert {one["project"] for one in page["data"]} <= {"ours"}


async def test_a_caller_reads_its_own_executions_alone(street: Street) -> None:
    async with client_with(street.node, street.keys["developer"]) as client:
        await mock_program(client, "qa")
    ids = {}
    other = await key_for(street.node, "caller", "ours")
    for name, key in (("own", street.keys["caller"]), ("other", other)):
        async with client_with(street.node, key) as client:
            once = {"idempotency-key": "once"}
            body = {"inputs": {"question": "?"}}
            ids[name] = (await client.post("/v1/programs/qa/predict", json=body, headers=once)).json()["id"]
    assert ids["own"] != ids["other"]
    async with client_with(street.node, street.keys["caller"]) as client:
        listed = (await client.get("/v1/executions")).json()["data"]
        assert [one["id"] for one in listed] == [ids["own"]]
        assert (await client.get(f"/v1/executions/{ids['own']}")).status_code == 200
        foreign = await client.get(f"/v1/executions/{ids['other']}")
        assert (foreign.status_code, foreign.json()["code"]) == (404, "execution_missing")
    async with client_with(street.node, street.keys["read-only"]) as client:
        assert len((await client.get("/v1/executions")).json()["data"]) == 2


@pytest.mark.parametrize("body", [{"signature": SIGNATURE, "inputs": {"question": "?"}}, {"input": "?"}])
async def test_a_signature_of_ones_own_needs_a_scope_of_its_own(street: Street, body: dict[str, Any]) -> None:
    for role, status in (("caller", 403), ("read-only", 403), ("developer", 503)):
        async with client_with(street.node, street.keys[role]) as client:
            answer = await client.post("/v1/predict", json=body)
            # 503: allowed, but this node has no compiler.
            assert answer.status_code == status, answer.text
            assert status == 503 or "programs:adhoc" in answer.json()["detail"]
