"""What every way to a model must do: one suite for our own client and for lm15 with two other wires."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from dspex.configuration.models import ModelSettings
from dspex.gateway import errors
from dspex.gateway.ports import LanguageModelClient
from dspex.gateway.records import Dialect, LanguageModelRequest, Message, Options, Usage
from dspex.kit.errors import Invalid
from dspex.providers.language_models.http_client import OpenAIChatClient
from dspex.providers.language_models.lm15_client import LM15Client
from tests.contracts.scripted_server import ScriptedServer, scripted_server

KEY = "sk-secret-0123456789"
ANSWER = "[[ ## answer ## ]]\nParis — Île-de-France"

OPENAI = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": ANSWER, "refusal": None},
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60},
        "completion_tokens_details": {"reasoning_tokens": 5},
    },
}
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": ANSWER}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 40,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 0,
        "output_tokens": 20,
    },
}
GEMINI = {
    "candidates": [
        {"content": {"parts": [{"text": ANSWER}], "role": "model"}, "finishReason": "STOP", "index": 0}
    ],
    "usageMetadata": {
        "promptTokenCount": 100,
        "candidatesTokenCount": 15,
        "thoughtsTokenCount": 5,
        "totalTokenCount": 120,
        "cachedContentTokenCount": 60,
    },
    "modelVersion": "gemini-2.5-flash",
    "responseId": "r1",
}


def openai_error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "some_error", "param": None, "code": code}}


@dataclass
class Way:
    """A client, the server it speaks to, and that provider's wire."""

    client: LanguageModelClient
    server: ScriptedServer
    dialect: Dialect
    success: dict[str, Any]
    model: str
    unauthorized: dict[str, Any]
    limited: dict[str, Any]
    overloaded: tuple[int, dict[str, Any]]

    def request(self, text: str = "Where is Paris?") -> LanguageModelRequest:
        messages = (Message("system", "Answer."), Message("user", text))
        return LanguageModelRequest("main", messages, Options(max_tokens=50, temperature=0.5), self.dialect)


def openai_way(server: ScriptedServer, settings: ModelSettings) -> Way:
    return Way(
        OpenAIChatClient(server.url, KEY, settings),
        server,
        Dialect("openai-chat", "openai-chat", "gpt-4o-mini"),
        OPENAI,
        "gpt-4o-mini-2024-07-18",
        openai_error("invalid_api_key", f"Incorrect API key provided: {KEY}"),
        openai_error("rate_limit_exceeded", "Rate limit reached"),
        (503, openai_error("server_error", "The engine is overloaded")),
    )


def anthropic_way(server: ScriptedServer, settings: ModelSettings) -> Way:
    def wrong(kind: str, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": kind, "message": message}}

    return Way(
        LM15Client(settings, KEY),
        server,
        Dialect("anthropic", "anthropic", "claude-sonnet-4-5"),
        ANTHROPIC,
        "claude-sonnet-4-5",
        wrong("authentication_error", "invalid x-api-key"),
        wrong("rate_limit_error", "This request would exceed your rate limit"),
        (529, wrong("overloaded_error", "Overloaded")),
    )


def gemini_way(server: ScriptedServer, settings: ModelSettings) -> Way:
    def wrong(code: int, status: str, message: str) -> dict[str, Any]:
        return {"error": {"code": code, "message": message, "status": status}}

    return Way(
        LM15Client(settings, KEY),
        server,
        Dialect("gemini", "gemini", "gemini-2.5-flash"),
        GEMINI,
        "gemini-2.5-flash",
        wrong(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
        wrong(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted."),
        (503, wrong(503, "UNAVAILABLE", "The model is overloaded.")),
    )


@pytest.fixture(params=[openai_way, anthropic_way, gemini_way])
async def way(request: pytest.FixtureRequest) -> AsyncIterator[Way]:
    async with scripted_server() as server:
        made: Way = request.param(
            server, ModelSettings(model="some/model", api_base=server.url, timeout_s=2, max_connections=2)
        )
        try:
            yield made
        finally:
            await made.client.aclose()


async def test_a_reply_comes_back_with_its_usage(way: Way) -> None:
    way.server.answers(way.success)
    reply = await way.client.complete(way.request())
    assert reply.text == ANSWER
    assert reply.model == way.model
    assert reply.finish_reason == "stop"
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.total_tokens) == (100, 20, 120)
    assert reply.usage.cache_read_tokens == 60


async def test_the_request_carries_the_prompt_the_options_and_the_key(way: Way) -> None:
    way.server.answers(way.success)
    await way.client.complete(way.request("é “\U0001f600”"))
    (received,) = way.server.received
    sent = json.dumps(received.body, ensure_ascii=False)
    assert "é “\U0001f600”".replace('"', '\\"') in sent
    assert "Answer." in sent
    assert "0.5" in sent
    assert "50" in sent
    assert KEY in "".join(received.headers.values()) + received.path
    assert "cookie" not in received.headers


async def test_connections_are_kept_and_no_more_than_allowed(way: Way) -> None:
    way.server.answers(way.success)
    for _ in range(3):
        await way.client.complete(way.request())
    assert way.server.connections == 1
    await asyncio.gather(*(way.client.complete(way.request()) for _ in range(8)))
    assert way.server.connections <= 2
    assert len(way.server.received) == 11


async def test_a_refused_key_is_an_auth_error_that_hides_the_key(way: Way) -> None:
    way.server.answers(way.unauthorized, 401)
    with pytest.raises(errors.LMAuthError) as raised:
        await way.client.complete(way.request())
    assert raised.value.status == 401
    assert not raised.value.retryable
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("status", [200, 302, 401, 500])
@pytest.mark.parametrize("before", [0, 190, 485, 490])
async def test_no_error_repeats_the_key_whole_or_cut_short(way: Way, status: int, before: int) -> None:
    said = "." * before + f" Authorization: Bearer {KEY} is no good"
    for body in ({"error": {"message": said, "code": 401}}, said.encode()):
        way.server.answers(body, status)
        try:
            # Some clients read an error inside a 200 as an empty answer.
            shown = repr(await way.client.complete(way.request()))
        except errors.LMError as error:
            shown = f"{error} {error.message} {error.__cause__}"
        assert KEY[:10] not in shown


async def test_a_rate_limit_says_when_to_try_again(way: Way) -> None:
    way.server.answers(way.limited, 429, {"retry-after": "7"})
    with pytest.raises(errors.LMRateLimitError) as raised:
        await way.client.complete(way.request())
    assert (raised.value.retry_after, raised.value.kind, raised.value.retryable) == (7.0, "exhausted", True)


async def test_an_overloaded_provider_is_a_server_error(way: Way) -> None:
    status, body = way.overloaded
    way.server.answers(body, status)
    with pytest.raises(errors.LMServerError) as raised:
        await way.client.complete(way.request())
    assert raised.value.status == status
    assert raised.value.retryable


async def test_a_plain_500_is_a_server_error(way: Way) -> None:
    way.server.answers(b"<html>Internal Server Error</html>", 500)
    with pytest.raises(errors.LMServerError):
        await way.client.complete(way.request())


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"", b'{"half": '])
async def test_what_is_not_json_is_a_provider_error(way: Way, body: bytes) -> None:
    way.server.answers(body)
    with pytest.raises(errors.LMProviderError):
        await way.client.complete(way.request())


async def test_json_of_another_shape_is_unexpected(way: Way) -> None:
    way.server.answers(["not", "a", "completion"])
    with pytest.raises(errors.LMUnexpectedError):
        await way.client.complete(way.request())


@pytest.mark.parametrize("mode", ["half", "nothing", "noise"])
async def test_a_broken_answer_is_a_transport_error(way: Way, mode: str) -> None:
    way.server.answers(way.success)
    way.server.mode = mode
    with pytest.raises(errors.LMTransportError) as raised:
        await way.client.complete(way.request())
    assert raised.value.retryable
    way.server.answers(way.success)
    assert (await way.client.complete(way.request())).text == ANSWER, "the next call uses a new connection"


async def test_silence_is_a_timeout(way: Way) -> None:
    way.server.mode = "hang"
    with pytest.raises(errors.LMTimeoutError):
        await way.client.complete(way.request())


async def test_giving_up_closes_the_connection(way: Way) -> None:
    way.server.mode = "hang"
    task = asyncio.create_task(way.client.complete(way.request()))
    async with asyncio.timeout(20):
        await way.server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await way.server.left.wait()


async def test_text_without_a_utf8_form_is_refused_before_it_is_sent(way: Way) -> None:
    with pytest.raises(Invalid) as refused:
        await way.client.complete(way.request("broken \ud800"))
    assert refused.value.code == "not_encodable"
    assert way.server.received == []


@pytest.mark.parametrize("make", [openai_way, anthropic_way, gemini_way])
async def test_a_refused_connection_is_a_transport_error(make: Any) -> None:
    async with scripted_server() as server:
        url = server.url
    server.url = url
    way: Way = make(server, ModelSettings(model="some/model", api_base=url, timeout_s=2))
    with pytest.raises(errors.LMTransportError) as raised:
        await way.client.complete(way.request())
    assert raised.value.code == "lm_unreachable"
    await way.client.aclose()


async def test_openai_usage_in_detail_and_the_path_asked_for() -> None:
    async with scripted_server() as server:
        way = openai_way(server, ModelSettings(model="openai/x"))
        server.answers(OPENAI | {"simulated": True})
        reply = await way.client.complete(way.request())
        await way.client.aclose()
    assert reply.usage == Usage(100, 20, 120, 5, 60, None)
    assert reply.simulated
    assert server.received[0].path == "/chat/completions"
    assert server.received[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_redirect_is_not_followed() -> None:
    async with scripted_server() as server, scripted_server() as elsewhere:
        way = openai_way(server, ModelSettings(model="openai/x"))
        server.answers(b"", 307, {"location": elsewhere.url})
        with pytest.raises(errors.LMProviderError):
            await way.client.complete(way.request())
        await way.client.aclose()
    assert elsewhere.received == []


async def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.providers.language_models.http_client.LONGEST_REPLY", 1000)
    async with scripted_server() as server:
        way = openai_way(server, ModelSettings(model="openai/x"))
        server.answers(b" " * 5000)
        with pytest.raises(errors.LMUnexpectedError, match="more than 1000 bytes"):
            await way.client.complete(way.request())
        await way.client.aclose()
