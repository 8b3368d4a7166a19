"""Caches over HTTP: headers, policies of requests and programs, what they hold, and clearing them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dspex.configuration.settings import ProgramEntry
from tests.interfaces.node import TestNode, mock_program
from tests.interfaces.served import client_of, served

PREDICT = "/v1/programs/qa/predict"


@pytest.fixture
async def client(compiler_address: Path, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    programs = (
        ProgramEntry(name="qa", signature="question -> answer"),
        ProgramEntry.model_validate(
            {"name": "uncached", "signature": "question -> answer", "cache": {"mode": "off"}}
        ),
    )
    async with (
        served(compiler_address, tmp_path, programs=programs) as application,
        client_of(application) as client,
    ):
        yield client


async def ask(client: httpx.AsyncClient, path: str = PREDICT, **more: Any) -> httpx.Response:
    answer = await client.post(path, json={"inputs": {"question": "Which?"}, **more})
    assert answer.status_code == 200, answer.text
    return answer


async def test_a_hit_says_so_in_header_and_body(client: httpx.AsyncClient) -> None:
    first, again = await ask(client), await ask(client)
    assert (first.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit")
    assert "age" not in first.headers and again.headers["age"] == "0"
    assert (first.json()["cache"], again.json()["cache"]) == ("miss", "hit")
    assert again.json()["outputs"] == first.json()["outputs"]
    assert again.json()["usage"] == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    assert (again.json()["cost_usd"], again.json()["simulated"]) == (0.0, True)
    shown: dict[str, Any] = {}
    while shown.get("id") != again.json()["id"]:
        # It is recorded behind the answer.
        shown = (await client.get(f"/v1/executions/{again.json()['id']}")).json()
    (line,) = shown["trace"]
    assert (line["cache"], line["messages"], line["provider_model"]) == ("hit", None, "default")


@pytest.mark.parametrize(
    ("path", "more", "found"),
    [
        (PREDICT, {"use_cache": False}, "off"),
        (PREDICT, {"cache": {"mode": "off"}}, "off"),
        (PREDICT, {"use_cache": False, "cache": {"mode": "off"}}, "off"),
        (PREDICT, {"use_cache": True, "cache": {"max_age_s": 60}}, "hit"),
        (PREDICT, {"cache": {"mode": "write_only"}}, "miss"),
        (PREDICT, {"cache": {"mode": "read_only", "stale_if_error_s": 5}}, "hit"),
        (PREDICT, {"parameters": {"rollout_id": 1}}, "miss"),
        ("/v1/predict", {"program": "qa"}, "hit"),
        ("/v1/predict", {"program": "qa", "use_cache": False}, "off"),
    ],
)
async def test_a_request_has_its_say(
    client: httpx.AsyncClient, path: str, more: dict[str, Any], found: str
) -> None:
    await ask(client)
    assert (await ask(client, path, **more)).json()["cache"] == found


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"use_cache": False, "cache": {}}, "/use_cache"),
        ({"use_cache": False, "cache": {"mode": "read_only"}}, "/use_cache"),
        ({"use_cache": True, "cache": {"mode": "off"}}, "/use_cache"),
        ({"cache": {"mode": "sometimes"}}, "/cache/mode"),
        ({"cache": {"max_age_s": -1}}, "/cache/max_age_s"),
        ({"cache": {"max_age_s": "60"}}, "/cache/max_age_s"),
        ({"cache": {"ttl": 1}}, "/cache/ttl"),
        ({"cache": "off"}, "/cache"),
    ],
)
async def test_policies_that_make_no_sense_are_refused(
    client: httpx.AsyncClient, more: dict[str, Any], pointer: str
) -> None:
    for path, body in ((PREDICT, more), ("/v1/predict", {"program": "qa", **more})):
        answer = await client.post(path, json={"inputs": {"question": "Which?"}, **body})
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")
        assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


async def test_a_program_has_a_policy_of_its_own(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert (await ask(client, "/v1/programs/uncached/predict")).json()["cache"] == "off"
    assert (await client.get("/v1/programs/uncached")).json()["cache"] == {
        "mode": "off",
        "max_age_s": None,
        "stale_if_error_s": 0.0,
    }
    assert (await client.get("/v1/programs/qa")).json()["cache"] is None
    policy = {"mode": "read_only", "max_age_s": 3.5, "stale_if_error_s": 0.0}
    async with TestNode().client() as other:
        made = await mock_program(other, "made", cache={"mode": "read_only", "max_age_s": 3.5})
        assert made["cache"] == (await other.get("/v1/programs/made")).json()["cache"] == policy
        refused = await other.post(
            "/v1/programs", json={"name": "x", "signature": "a -> b", "cache": {"x": 1}}
        )
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/cache/x")


async def test_another_version_is_asked_anew(client: httpx.AsyncClient) -> None:
    await ask(client)
    made = await client.post(
        "/v1/programs/qa/versions", json={"signature": "question -> answer, why", "deploy": True}
    )
    assert made.status_code == 201, made.text
    answer = await ask(client)
    assert (answer.json()["version"], answer.json()["cache"]) == (2, "miss")
    assert "why" in answer.json()["outputs"]
    await client.post("/v1/programs/qa/rollback")
    back = await ask(client)
    assert (back.json()["version"], back.json()["cache"]) == (1, "hit")


async def test_what_the_caches_hold_and_clearing_them(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await ask(client)
    found = (await client.get("/v1/cache")).json()
    assert (found["redis"], found["next_cursor"]) == ("off", None)
    reply, prediction, embedding = found["data"]
    assert reply["bytes"] > 0
    del reply["bytes"], prediction["bytes"]
    assert reply == {"kind": "reply", "entries": 1, "hits": 0, "misses": 1, "stale": 0, "hit_rate": 0.0}
    assert prediction == {
        "kind": "prediction", "entries": 1, "hits": 2, "misses": 1, "stale": 0, "hit_rate": 0.6667,
    }  # fmt: skip
    assert (embedding["kind"], embedding["entries"], embedding["hit_rate"]) == ("embedding", 0, None)
    for body, project in ((None, "default"), ({}, "default"), ({"all_projects": True}, None)):
        cleared = (
            await client.post("/v1/cache/clear", json=body)
            if body is not None
            else await client.post("/v1/cache/clear")
        )
        assert cleared.json() == {"project": project}
        assert [one["entries"] for one in (await client.get("/v1/cache")).json()["data"]] == [0, 0, 0]
        assert (await ask(client)).json()["cache"] == "miss"
        assert (await ask(client)).json()["cache"] == "hit"
    assert (await client.post("/v1/cache/clear", json={"project": "x"})).status_code == 422


async def test_an_unasked_cache_has_no_hit_rate() -> None:
    async with TestNode().client() as client:
        assert [one["hit_rate"] for one in (await client.get("/v1/cache")).json()["data"]] == [None] * 3


async def test_a_repeated_key_gives_the_same_execution_although_it_was_a_hit(
    client: httpx.AsyncClient,
) -> None:
    await ask(client)
    body, key = {"inputs": {"question": "Which?"}}, {"idempotency-key": "order-7"}
    hit = await client.post(PREDICT, json=body, headers=key)
    again = await client.post(PREDICT, json=body, headers=key)
    assert hit.headers["x-cache"] == "hit"
    assert again.content == hit.content and again.headers["idempotent-replayed"] == "true"
