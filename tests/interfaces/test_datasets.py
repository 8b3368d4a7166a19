"""Datasets and feedback over HTTP."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from dspex.configuration.settings import Limits, Settings
from tests.interfaces.keyed import client_with, key_for, keyed_node
from tests.interfaces.node import TestNode, mock_program

LINES = {"content-type": "application/jsonl"}
CSV = {"content-type": "text/csv; charset=utf-8"}


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"inputs": {"question": f"{number}?"}, "outputs": {"answer": "yes" if number % 3 else "no"}}
        for number in range(count)
    ]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with TestNode().client() as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def untouched() -> AsyncIterator[httpx.AsyncClient]:
    """A node for what leaves nothing behind; to make one takes 0.3 s."""
    async with TestNode().client() as client:
        yield client


async def made(client: httpx.AsyncClient, count: int = 10, **more: Any) -> dict[str, Any]:
    answer = await client.post("/v1/datasets", json={"name": "qa", "rows": rows(count), **more})
    assert answer.status_code in (200, 201), answer.text
    document: dict[str, Any] = answer.json()
    return document


async def all_rows(client: httpx.AsyncClient, name: str, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        params = {"limit": 4, **query} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(f"/v1/datasets/{name}/rows", params=params)).json()
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def test_a_dataset_in_one_document(client: httpx.AsyncClient) -> None:
    body = {"name": "qa", "kind": "training", "description": "d", "metadata": {"a": 1}, "rows": rows(10)}
    answer = await client.post("/v1/datasets", json=body)
    assert answer.status_code == 201
    assert answer.headers["location"] == "/v1/datasets/qa?version=1"
    dataset = answer.json()
    assert (dataset["version"], dataset["rows"], dataset["kind"]) == (1, 10, "training")
    assert dataset["fields"] == {"inputs": {"question": ["string"]}, "outputs": {"answer": ["string"]}}
    assert dataset["metadata"] == {"a": 1}
    again = await client.post("/v1/datasets", json=body)
    assert (again.status_code, again.json()) == (200, dataset)
    found = await all_rows(client, "qa")
    assert [one["position"] for one in found] == list(range(1, 11))
    assert found[3]["inputs"] == {"question": "3?"}
    more = await made(client, 11)
    assert more["version"] == 2
    assert (await client.get("/v1/datasets/qa")).json() == more
    assert (await client.get("/v1/datasets/qa", params={"version": 1})).json() == dataset
    versions = (await client.get("/v1/datasets/qa/versions")).json()["data"]
    assert [one["version"] for one in versions] == [2, 1]
    assert [one["version"] for one in (await client.get("/v1/datasets")).json()["data"]] == [2]
    assert (await client.get("/v1/datasets", params={"kind": "training"})).json()["data"] == []


async def test_files_of_every_kind_give_the_same_rows(client: httpx.AsyncClient) -> None:
    given = rows(5)
    lines = "\r\n".join(json.dumps(one) for one in given)
    table = "question,answer\n" + "".join(
        f"{one['inputs']['question']},{one['outputs']['answer']}\n" for one in given
    )
    flat = [{"q": one["inputs"]["question"], **one["outputs"]} for one in given]
    for content, headers, query in (
        (lines, LINES, {}),
        (table, CSV, {"inputs": "question"}),
        (json.dumps(flat), {"content-type": "application/json"}, {"inputs": "question=q"}),
        (json.dumps({"rows": given}), {"content-type": "application/json"}, {}),
    ):
        params = {"name": "qa", "kind": "test", **query}
        answer = await client.post("/v1/datasets", content=content, headers=headers, params=params)
        assert answer.status_code in (200, 201), answer.text
        assert (answer.json()["version"], answer.json()["rows"]) == (1, 5)


async def test_every_bad_row_is_told_and_nothing_is_kept(client: httpx.AsyncClient) -> None:
    content = '{"inputs": {"a": 1}}\nnope\n{"outputs": {}}\n{"inputs": {"a": 1}, "x": 1}\n' + "[]\n" * 200
    answer = await client.post("/v1/datasets", content=content, headers=LINES, params={"name": "qa"})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_dataset")
    assert answer.json()["detail"].startswith("203 rows are bad, the first: /2 line 2 is not JSON")
    told = [one["pointer"] for one in answer.json()["errors"]]
    assert told[:4] == ["/2", "/3/inputs", "/4/x", "/5"] and len(told) == 100
    inline = await client.post("/v1/datasets", json={"name": "qa", "rows": [*rows(1), {"inputs": {}}]})
    assert [one["pointer"] for one in inline.json()["errors"]] == ["/rows/1/inputs"]
    typed = await client.post(
        "/v1/datasets", content="q,k\na,1\nb,x\n", headers=CSV, params={"name": "qa", "inputs": "q,k:int"}
    )
    assert [one["pointer"] for one in typed.json()["errors"]] == ["/3/k"]
    assert (await client.get("/v1/datasets/qa")).status_code == 404


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("content", "headers", "params", "status", "code"),
    [
        ("", LINES, {"name": "qa"}, 422, "empty_dataset"),
        ("\n\n", LINES, {"name": "qa"}, 422, "empty_dataset"),
        ("q\n", CSV, {"name": "qa", "inputs": "q"}, 422, "empty_dataset"),
        ("q\nx", CSV, {"name": "qa"}, 422, "bad_columns"),
        ("q\nx", CSV, {"name": "qa", "inputs": "q:nope"}, 422, "bad_columns"),
        ("q\nx", CSV, {"name": "qa", "inputs": "other"}, 422, "bad_dataset"),
        ("{}", {"content-type": "application/json"}, {"name": "qa"}, 422, "bad_file"),
        ("{}", {"content-type": "application/json"}, {}, 422, "bad_request"),
        ("{}", {"content-type": "text/plain"}, {"name": "qa"}, 415, "not_application_json"),
        ("{}", LINES, {}, 422, "bad_request"),
        ("{}", LINES, {"name": "a b"}, 422, "bad_request"),
        ("{}", LINES, {"name": "qa", "kind": "other"}, 422, "bad_request"),
        ("{}", LINES, {"name": "qa", "size": "3"}, 422, "bad_request"),
        ("{}", {"content-type": "application/vnd.apache.parquet"}, {"name": "qa"}, 422, "bad_file"),
    ],
)
async def test_bad_uploads_are_refused(
    untouched: httpx.AsyncClient, content: str, headers: Any, params: Any, status: int, code: str
) -> None:
    answer = await untouched.post("/v1/datasets", content=content, headers=headers, params=params)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await untouched.get("/v1/datasets")).json()["data"] == []


async def test_datasets_have_limits() -> None:
    limits = Limits(dataset_rows=5, dataset_bytes=2000, dataset_row_bytes=1024)
    async with TestNode(Settings(log_level="error", limits=limits)).client() as client:
        many = await client.post("/v1/datasets", json={"name": "qa", "rows": rows(6)})
        assert (many.status_code, many.json()["code"]) == (413, "dataset_too_large")
        large = await client.post("/v1/datasets", content=b"x" * 2001, headers=LINES, params={"name": "qa"})
        assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
        long = [{"inputs": {"a": "x" * 1024}}]
        wide = await client.post("/v1/datasets", json={"name": "qa", "rows": long})
        assert [one["code"] for one in wide.json()["errors"]] == ["row_too_large"]


async def test_samples_and_splits_can_be_done_again(client: httpx.AsyncClient) -> None:
    await made(client, 40)
    ask = {"count": 5, "seed": 3}
    first = (await client.post("/v1/datasets/qa/sample", json=ask)).json()
    assert (await client.post("/v1/datasets/qa/sample", json=ask)).json() == first
    positions = [one["position"] for one in first["data"]]
    assert len(positions) == 5 and positions == sorted(positions)
    other = (await client.post("/v1/datasets/qa/sample", json={"count": 5, "seed": 4})).json()
    assert other["data"] != first["data"]
    ask = {"ratios": {"training": 0.7, "validation": 0.2, "holdout": 0.1}, "seed": 1}
    split = await client.post("/v1/datasets/qa/split", json=ask)
    assert split.status_code == 201
    parts = split.json()["data"]
    assert [(one["name"], one["kind"], one["rows"]) for one in parts] == [
        ("qa-training", "training", 28),
        ("qa-validation", "validation", 8),
        ("qa-holdout", "custom", 4),
    ]
    assert parts[0]["origin"]["dataset"] == "qa" and parts[0]["origin"]["seed"] == 1
    ids = [row["id"] for one in parts for row in await all_rows(client, one["name"])]
    assert sorted(ids) == sorted(one["id"] for one in await all_rows(client, "qa"))
    again = (await client.post("/v1/datasets/qa/split", json=ask)).json()["data"]
    assert again == parts
    few = await client.post("/v1/datasets/qa/split", json={"ratios": {"a": 0.999, "b": 0.001}})
    assert (few.status_code, few.json()["code"]) == (422, "too_few_rows")
    bad = await client.post("/v1/datasets/qa/split", json={"ratios": {"a": 0.5, "b": 0.1}})
    assert bad.json()["code"] == "bad_ratios"


async def test_rows_with_the_same_inputs_stay_together(client: httpx.AsyncClient) -> None:
    same = [{"inputs": {"question": f"{n % 10}?"}, "outputs": {"answer": str(n)}} for n in range(60)]
    await client.post("/v1/datasets", json={"name": "qa", "rows": same})
    await client.post("/v1/datasets/qa/split", json={"ratios": {"a": 0.5, "b": 0.5}})
    sides = [
        {one["inputs"]["question"] for one in await all_rows(client, f"qa-{part}")} for part in ("a", "b")
    ]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 10


async def test_statistics(client: httpx.AsyncClient) -> None:
    given = [*rows(9), rows(1)[0], {"inputs": {"question": "0?"}, "outputs": {"answer": "other"}}]
    given.append({"inputs": {"question": "?", "k": 2.5}})
    await client.post("/v1/datasets", json={"name": "qa", "rows": given})
    found = (await client.get("/v1/datasets/qa/statistics")).json()
    counts = ("rows", "unlabelled", "duplicates", "conflicting")
    assert [found[one] for one in counts] == [12, 1, 1, 1]
    answer = found["outputs"]["answer"]
    assert [(one["value"], one["rows"]) for one in answer["values"]] == [("yes", 6), ("no", 4), ("other", 1)]
    assert answer["lengths"] == {"min": 2, "avg": (18 + 8 + 5) / 11, "max": 5}
    assert found["inputs"]["k"]["numbers"] == {"min": 2.5, "avg": 2.5, "max": 2.5}
    assert found["inputs"]["question"]["types"] == {"string": 12}


async def test_rows_are_held_against_a_signature(client: httpx.AsyncClient) -> None:
    await mock_program(client, "answers", signature="question -> answer: Literal['yes', 'no']")
    bad = {"inputs": {"query": 3}, "outputs": {"answer": "maybe"}}
    given = [*rows(3), bad, {"inputs": {"question": "unlabelled?"}}, bad, bad]
    await client.post("/v1/datasets", json={"name": "qa", "rows": given})
    verdict = (await client.post("/v1/datasets/qa/validate", json={"program": "answers", "limit": 2})).json()
    assert (verdict["valid"], verdict["checked"], verdict["bad_rows"]) == (False, 7, 3)
    assert verdict["unlabelled"] == 1
    assert [one["position"] for one in verdict["bad"]] == [4, 6]
    pointers = {one["pointer"] for one in verdict["bad"][0]["problems"]}
    assert pointers == {"/inputs/question", "/inputs/query", "/outputs/answer"}
    rest = {"program": "answers", "after": verdict["next_position"]}
    more = (await client.post("/v1/datasets/qa/validate", json=rest)).json()
    assert ([one["position"] for one in more["bad"]], more["next_position"]) == ([7], None)
    good = (await client.post("/v1/datasets/qa/validate", json={"signature": "question -> answer"})).json()
    assert good["bad_rows"] == 3
    for body, status, code in (
        ({}, 422, "bad_request"),
        ({"program": "answers", "signature": "a -> b"}, 422, "bad_request"),
        ({"program": "absent"}, 404, "program_missing"),
        ({"program": "answers", "program_version": 9}, 404, "version_missing"),
        ({"signature": "a -> "}, 422, "bad_signature"),
    ):
        answer = await client.post("/v1/datasets/qa/validate", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), body


async def test_an_export_can_be_loaded_again(client: httpx.AsyncClient) -> None:
    first = await made(client, 7)
    exported = await client.get("/v1/datasets/qa/export")
    again = await client.post(
        "/v1/datasets", content=exported.content, headers=LINES, params={"name": "copy"}
    )
    assert again.json()["digest"] == first["digest"]


async def test_rows_and_versions_are_deleted(client: httpx.AsyncClient) -> None:
    await made(client, 5)
    found = await all_rows(client, "qa")
    gone = (await client.delete(f"/v1/datasets/qa/rows/{found[1]['id']}")).json()
    assert (gone["dataset"]["version"], gone["dataset"]["rows"]) == (2, 4)
    assert gone["still_in"] == [{"name": "qa", "version": 1}]
    left = await all_rows(client, "qa")
    assert [one["id"] for one in left] == [one["id"] for one in found if one != found[1]]
    assert [one["position"] for one in left] == [1, 2, 3, 4]
    missing = await client.delete(f"/v1/datasets/qa/rows/{found[1]['id']}")
    assert (missing.status_code, missing.json()["code"]) == (404, "dataset_row_missing")
    assert (await client.delete("/v1/datasets/qa", params={"version": 1})).json()["versions"] == [1]
    deleted = (await client.delete("/v1/datasets/qa")).json()
    assert deleted == {"name": "qa", "versions": [2], "used_by": []}
    for method, path in (("GET", "/rows"), ("GET", ""), ("DELETE", ""), ("GET", "/versions")):
        answer = await client.request(method, f"/v1/datasets/qa{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "dataset_missing")


async def predicted(client: httpx.AsyncClient, question: str = "?") -> str:
    answer = await client.post("/v1/programs/qa/predict", json={"inputs": {"question": question}})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def test_feedback_becomes_rows_with_their_provenance(client: httpx.AsyncClient) -> None:
    await mock_program(client, mock={"outputs": {"answer": "made up"}})
    ids = [await predicted(client, f"{number}?") for number in range(5)]
    said: list[dict[str, Any]] = [
        {"score": 1.0, "label": "good"},
        {"score": 0.2, "correction": {"answer": "right"}, "comment": "wrong"},
        {"score": 0.9},
    ]
    for execution_id, body in zip(ids, said, strict=False):
        answer = await client.post(f"/v1/executions/{execution_id}/feedback", json=body)
        assert answer.status_code == 201, answer.text
    await client.post(f"/v1/executions/{ids[2]}/feedback", json={"score": 0.1})
    listed = (await client.get(f"/v1/executions/{ids[2]}/feedback")).json()["data"]
    assert [one["score"] for one in listed] == [0.9, 0.1]

    async def dataset(**where: Any) -> list[dict[str, Any]]:
        body = {"name": "judged", "program": "qa", **where}
        answer = await client.post("/v1/datasets/from-executions", json=body)
        assert answer.status_code in (200, 201), answer.text
        return await all_rows(client, "judged", version=answer.json()["version"])

    found = await dataset()
    assert [one["inputs"]["question"] for one in found] == ["0?", "1?", "2?"]
    assert [one["outputs"]["answer"] for one in found] == ["made up", "right", "made up"]
    assert found[0]["metadata"] == {"score": 1.0, "label": "good"}
    assert found[1]["provenance"]["execution_id"] == ids[1] and found[1]["provenance"]["corrected"]
    assert found[1]["provenance"]["version"] == 1
    assert len(await dataset(only="corrections")) == 1
    # The newest word counts.
    assert [one["inputs"]["question"] for one in await dataset(min_score=0.5)] == ["0?"]
    assert len(await dataset(label="good")) == 1
    assert len(await dataset(only="all")) == 5
    assert len(await dataset(only="all", limit=2)) == 2
    none = await client.post(
        "/v1/datasets/from-executions", json={"name": "none", "program": "qa", "label": "absent"}
    )
    assert (none.status_code, none.json()["code"]) == (422, "empty_dataset")
    assert "No execution of 'qa' has feedback among those that `label` let through" in none.json()["detail"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "empty_feedback"),
        ({"score": "1"}, "bad_request"),
        ({"score": 1e9}, "bad_request"),
        ({"label": ""}, "bad_request"),
        ({"rating": 1}, "bad_request"),
        ({"correction": {}}, "bad_request"),
        ({"correction": {"reply": "x"}}, "bad_correction"),
        ({"correction": {"answer": 3}}, "bad_correction"),
        ({"comment": "x" * 10_001}, "bad_request"),
    ],
)
async def test_bad_feedback_is_refused(client: httpx.AsyncClient, body: Any, code: str) -> None:
    await mock_program(client)
    place = f"/v1/executions/{await predicted(client)}/feedback"
    answer = await client.post(place, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert (await client.get(place)).json()["data"] == []


async def test_an_execution_has_so_much_feedback_and_no_more(client: httpx.AsyncClient) -> None:
    await mock_program(client)
    place = f"/v1/executions/{await predicted(client)}/feedback"
    for _ in range(100):
        assert (await client.post(place, json={"score": 1.0})).status_code == 201
    answer = await client.post(place, json={"score": 1.0})
    assert (answer.status_code, answer.json()["code"]) == (409, "feedback_full")


async def test_callers_judge_their_own_and_writing_is_in_the_audit_log() -> None:
    node = keyed_node()
    admin = await key_for(node)
    callers = [await key_for(node, "caller") for _ in range(2)]
    async with client_with(node, admin) as client:
        await mock_program(client)
    async with client_with(node, callers[0]) as client:
        place = f"/v1/executions/{await predicted(client)}/feedback"
        assert (await client.post(place, json={"score": 1.0})).status_code == 201
    async with client_with(node, callers[1]) as client:
        assert (await client.post(place, json={"score": 0.0})).status_code == 404
    async with client_with(node, admin) as client:
        upload = {"name": "up", "inputs": "q"}
        answer = await client.post("/v1/datasets", content="q,a\nx,y\n", headers=CSV, params=upload)
        assert answer.status_code == 201
        entries = (await client.get("/v1/audit")).json()["data"]
        created = next(one for one in entries if one["action"] == "dataset.create")
        assert created["details"] == {"name": "up", "version": 1, "rows": 1}
        assert any(one["action"] == "feedback.give" for one in entries)
        narrow = await key_for(node, scopes=frozenset({"datasets:write"}))
    async with client_with(node, narrow) as client:
        answer = await client.post("/v1/datasets/from-executions", json={"name": "x", "program": "qa"})
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
