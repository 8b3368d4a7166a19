"""Who may come in, what is written down about it, and what a node says about itself."""

import io
import json
import logging
from typing import Any

import httpx
import pytest
import structlog

from dspex.configuration.alerting import AlertSettings, WebhookSettings
from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.configuration.settings import Server, Settings
from dspex.observability.logs import Format, configure_logs
from dspex.observability.request_log import JsonLines
from tests.interfaces.node import TestNode, mock_program

ASK = {"inputs": {"question": "?"}}
PREDICT = "/v1/programs/qa/predict"


def settings(**server: Any) -> Settings:
    return Settings(log_level="error", server=Server(**server))


@pytest.mark.parametrize("path", ["/health", PREDICT])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"host": "evil.example"}, "host_not_allowed"),
        ({"host": "localhost.evil.example:8000"}, "host_not_allowed"),
        ({"host": "127.0.0.1@evil.example"}, "host_not_allowed"),
        ({"host": ""}, "host_not_allowed"),
        ({"origin": "https://evil.example"}, "origin_not_allowed"),
        ({"origin": "null"}, "origin_not_allowed"),
        ({"origin": "http://127.0.0.1:3000"}, "origin_not_allowed"),
        ({"x-forwarded-for": "10.0.0.1"}, "forwarded_not_allowed"),
        ({"forwarded": "for=10.0.0.1"}, "forwarded_not_allowed"),
        ({"x-real-ip": "10.0.0.1"}, "forwarded_not_allowed"),
        ({"via": "1.1 proxy"}, "forwarded_not_allowed"),
    ],
)
async def test_strangers_are_refused_with_what_to_set(path: str, headers: dict[str, str], code: str) -> None:
    async with TestNode(settings()).client() as client:
        answer = await client.post(path, json=ASK, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, code)
        assert "server." in answer.json()["detail"] or "access.mode" in answer.json()["detail"]
        assert answer.headers["x-request-id"] == answer.json()["request_id"]


@pytest.mark.parametrize(
    ("server", "headers"),
    [
        ({}, {"host": "LOCALHOST:8000"}),
        ({}, {"host": "[::1]:8000"}),
        ({}, {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}),
        ({"allowed_hosts": ("dspex.internal",)}, {"host": "dspex.internal"}),
        ({"cors_origins": ("https://app.example",)}, {"origin": "https://app.example"}),
    ],
)
async def test_friends_come_in(server: dict[str, Any], headers: dict[str, str]) -> None:
    async with TestNode(settings(**server)).client() as client:
        assert (await client.get("/health", headers=headers)).status_code == 200


async def test_pages_of_listed_origins_may_read_answers_and_errors() -> None:
    async with TestNode(settings(cors_origins=("https://app.example",))).client() as client:
        await mock_program(client)
        origin = {"origin": "https://app.example"}
        for answer in (
            await client.post(PREDICT, json=ASK, headers=origin),
            await client.post(PREDICT, json={}, headers=origin),
            await client.get("/v1/programs", headers=origin),
            await client.get("/nothing", headers=origin),
        ):
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            assert "x-request-id" in answer.headers["access-control-expose-headers"]
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
        before = await client.options(PREDICT, headers=origin | asked)
        assert before.status_code == 200 and "POST" in before.headers["access-control-allow-methods"]


async def test_answers_are_compressed_where_that_is_set() -> None:
    async with TestNode(settings(compression=True)).client() as client:
        await mock_program(client, mock={"outputs": {"answer": "x" * 5000}})
        answer = await client.post(PREDICT, json=ASK, headers={"accept-encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.json()["outputs"]["answer"] == "x" * 5000


@pytest.mark.parametrize("path", ["/health", PREDICT, "/nothing"])
async def test_a_request_id_is_kept_or_made(path: str) -> None:
    async with TestNode(settings()).client() as client:
        kept = await client.post(path, json=ASK, headers={"x-request-id": "mine-1"})
        assert kept.headers["x-request-id"] == "mine-1"
        made = await client.post(path, json=ASK, headers={"x-request-id": "not a token"})
        assert len(made.headers["x-request-id"]) == 36


async def test_each_request_is_one_line_without_what_was_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    monkeypatch.setattr("dspex.interfaces.rest.app.request_log", lambda level, form: JsonLines(stream))
    async with TestNode(settings()).client() as client:
        await mock_program(client)
        answer = await client.post(
            "/v1/programs/qa/predict?token=hush", json={"inputs": {"question": "hush"}, "session_id": "hush"}
        )
        await client.get("/v1/programs/qa/versions/1", headers={"authorization": "Bearer hush"})
        await client.get("/v1/hush")
        await client.get("/health", headers={"host": "hush.example"})
    assert b"hush" not in stream.getvalue()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(one["method"], one["route"], one["status"]) for one in lines] == [
        ("POST", "/v1/programs", 201),
        ("POST", "/v1/programs/{name}/predict", 200),
        ("GET", "/v1/programs/{name}/versions/{number}", 200),
        ("GET", "(no route)", 404),
        ("GET", "(no route)", 403),
    ]
    assert lines[1]["execution_id"] == answer.json()["id"]
    assert lines[1]["request_id"] == answer.headers["x-request-id"]
    assert all(one["duration_ms"] >= 0 and one["timestamp"].endswith("Z") for one in lines)


async def test_a_log_that_nobody_takes_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("dspex.interfaces.rest.app.request_log", lambda level, form: JsonLines(Full()))
    async with TestNode(settings()).client() as client:
        assert (await client.get("/health")).status_code == 200


async def test_a_node_says_what_it_is_and_how_it_is() -> None:
    async with TestNode(settings()).client() as client:
        service = (await client.get("/")).json()
        assert service["name"] == "DSPex" and service["simulated"] is True
        for path in service["links"].values():
            assert (await client.get(path)).status_code == 200, path
        health = (await client.get("/health")).json()
        assert health["uptime_s"] >= 0 and health["in_flight"] == 0
        assert (await client.get("/docs")).headers["location"] == "/openapi.json"


async def test_the_configuration_is_shown_without_its_secrets() -> None:
    hidden = Settings(
        log_level="error",
        database_url="postgresql://dspex:hush@db.example/dspex?password=hush",
        models=ModelRegistry(
            default="main",
            registry={
                "main": ModelSettings(
                    model="openai/gpt-4o-mini",
                    env="OPENAI_API_KEY",
                    api_base="https://llm.example/v1",
                    options={
                        "top_p": 0.5,
                        "api_key": "hush",
                        "extra": {"X-Auth-Token": "hush", "accessToken": "hush", "clientSecret": "hush"},
                        "defaultHeaders": {"X-Anything": "hush"},
                    },
                )
            },
        ),
    )
    async with TestNode(hidden).client() as client:
        answer = await client.get("/config")
    assert "hush" not in answer.text
    shown = answer.json()
    assert shown["database_url"].startswith("postgresql://dspex:***@db.example/dspex")
    main = shown["models"]["registry"]["main"]
    assert (main["env"], main["options"]["top_p"], main["options"]["api_key"]) == (
        "OPENAI_API_KEY",
        0.5,
        "***",
    )
    assert main["max_tokens"] is None


async def test_the_paths_of_webhooks_are_secrets_too() -> None:
    urls = (
        "https://hooks.example.com/services/T0/hush",
        "https://hooks.example.com:8443/hush",
        "https://hooks.example.com",
    )
    alerts = AlertSettings(webhooks=tuple(WebhookSettings(url=url) for url in urls))
    async with TestNode(Settings(log_level="error", alerts=alerts)).client() as client:
        answer = await client.get("/config")
    assert "hush" not in answer.text
    shown = answer.json()["alerts"]["webhooks"]
    assert [one["url"] for one in shown] == [
        "https://hooks.example.com/***",
        "https://hooks.example.com:8443/***",
        "https://hooks.example.com",
    ]


@pytest.mark.parametrize("form", ["console", "json"])
async def test_a_defect_is_logged_without_what_was_in_the_request(
    form: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, root = io.StringIO(), logging.getLogger()
    node = TestNode(settings())
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr("sys.stderr", stream)
    try:
        configure_logs("error", form)
        monkeypatch.setattr("dspex.interfaces.rest.app.log", structlog.get_logger("defects"))
        monkeypatch.setattr(node.switch, "check", lambda: 1 / 0)
        async with node.client() as client:
            answer = await client.post(
                PREDICT, json={"inputs": {"question": "hush"}}, headers={"authorization": "Bearer hush"}
            )
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    assert answer.status_code == 500
    assert "ZeroDivisionError" in stream.getvalue()
    assert "hush" not in stream.getvalue() + answer.text


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_probes_may_ask_for_the_head_alone(path: str, away: bool) -> None:
    node = TestNode(settings())
    node.switch.away = away
    async with node.client() as client:
        whole, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.headers["content-type"]) == (
        whole.status_code,
        whole.headers["content-type"],
    )


async def test_costs_are_listed_with_their_sum() -> None:
    async with TestNode(settings()).client() as client:
        assert (await client.get("/costs")).json()["total"]["executions"] == 0
        await mock_program(client)
        await client.post(PREDICT, json=ASK)
        costs = (await client.get("/costs", params={"program": "qa", "since": "2026-01-01"})).json()
        assert (costs["data"][0]["program"], costs["data"][0]["unpriced"]) == ("qa", 0)
        assert (costs["total"]["executions"], costs["total"]["cost_usd"]) == (1, 0.0)
        assert costs["next_cursor"] is None


async def test_signatures_are_registered_and_moved_through_their_life() -> None:
    async with TestNode(settings()).client() as client:
        made = await client.post("/v1/signatures", json={"name": "qa", "signature": "question -> answer"})
        assert (made.status_code, made.json()["version"], made.json()["status"]) == (201, 1, "draft")
        assert (await client.get(made.headers["location"])).json() == made.json()
        second = await client.post(
            "/v1/signatures", json={"name": "qa", "signature": "question -> answer: int"}
        )
        assert second.json()["version"] == 2
        assert (await client.get("/v1/signatures/qa")).json()["version"] == 2
        listed = (await client.get("/v1/signatures", params={"name": "qa"})).json()["data"]
        assert [one["version"] for one in listed] == [2, 1]
        early = await client.post("/v1/signatures/qa/versions/1/deprecate")
        assert (early.status_code, early.json()["code"]) == (409, "signature_state")
        assert (await client.post("/v1/signatures/qa/versions/1/activate")).json()["status"] == "active"
        assert (await client.post("/v1/signatures/qa/versions/1/deprecate")).json()["status"] == "deprecated"
        for path in ("/v1/signatures/qa?version=9", "/v1/signatures/no%00name", "/v1/signatures/other"):
            missing: httpx.Response = await client.get(path)
            assert (missing.status_code, missing.json()["code"]) == (404, "signature_not_found")


@pytest.mark.parametrize(
    ("form", "position", "pointers"),
    [
        ("question -> answer: wat", 20, [""]),
        ({"inputs": [{"name": "q", "type": "wat"}], "outputs": []}, None, ["/inputs/0/type", "/outputs"]),
    ],
)
async def test_a_signature_can_be_tried_without_registering_it(
    form: Any, position: int | None, pointers: list[str]
) -> None:
    async with TestNode(settings()).client() as client:
        bad = (await client.post("/v1/signatures/validate", json={"signature": form})).json()
        assert (bad["valid"], bad.get("position")) == (False, position)
        assert [one["pointer"] for one in bad["errors"]] == pointers
        good = (await client.post("/v1/signatures/validate", json={"signature": "a -> b"})).json()
        assert good == {
            "valid": True,
            "errors": [],
            "signature": {"inputs": [{"name": "a"}], "outputs": [{"name": "b"}]},
        }
        assert (await client.get("/v1/signatures")).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"program": "qa", "input": "text"}, "not_text"),
        ({"signature": "question -> answer", "input": "text"}, "not_text"),
        ({"program": "qa", "input": {"question": "a"}, "inputs": {"question": "b"}}, "not_both"),
        ({"input": "text", "inputs": {}}, "not_both"),
    ],
)
async def test_an_input_that_does_not_fit_is_told_and_not_dropped(body: dict[str, Any], code: str) -> None:
    async with TestNode(settings()).client() as client:
        await mock_program(client)
        answer = await client.post("/v1/predict", json=body)
        assert [(one["pointer"], one["code"]) for one in answer.json()["errors"]] == [("/input", code)]
        taken = await client.post("/v1/predict", json={"program": "qa", "input": {"question": "a"}})
        assert taken.status_code == 200
