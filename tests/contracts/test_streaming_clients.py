"""Clients that are given a sink: it hears the text as it comes, and the reply is what it is without one."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.configuration.models import ModelSettings
from dspex.gateway import errors
from dspex.gateway.records import Dialect, LanguageModelReply, LanguageModelRequest
from tests.contracts.scripted_server import ScriptedServer, scripted_server
from tests.contracts.test_language_model_client import (
    ANSWER,
    KEY,
    Way,
    anthropic_way,
    gemini_way,
    openai_way,
)

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
PIECES = [ANSWER[at : at + 3] for at in range(0, len(ANSWER), 3)]
USAGE: dict[str, Any] = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


@dataclass
class Heard:
    pieces: list[str] = field(default_factory=list)
    first: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, model: str) -> None: ...

    def add(self, text: str) -> None:
        self.pieces.append(text)
        self.first.set()


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o-mini-2024-07-18"}
    return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None, **more}]}


def sse(events: Sequence[Any], *, named: bool = False, done: bool = True) -> bytes:
    written = "".join(
        (f"event: {one['type']}\n" if named else "") + f"data: {json.dumps(one)}\n\n" for one in events
    )
    return (written + ("data: [DONE]\n\n" if done else "")).encode()


def openai_events(pieces: Sequence[str] = PIECES) -> list[dict[str, Any]]:
    return [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        *(chunk({"content": piece}) for piece in pieces),
        chunk({}, finish_reason="stop"),
        {**chunk({}), "choices": [], "usage": USAGE},
    ]


def anthropic_events() -> list[dict[str, Any]]:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 40,
            "cache_read_input_tokens": 60,
            "cache_creation_input_tokens": 0,
            "output_tokens": 1,
        },
    }
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in PIECES
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            # Cumulative, as the live service sends it.
            "usage": {
                "input_tokens": 40,
                "cache_read_input_tokens": 60,
                "cache_creation_input_tokens": 0,
                "output_tokens": 20,
            },
        },
        {"type": "message_stop"},
    ]


def gemini_events() -> list[dict[str, Any]]:
    usage = {
        "promptTokenCount": 100,
        "candidatesTokenCount": 15,
        "thoughtsTokenCount": 5,
        "totalTokenCount": 120,
        "cachedContentTokenCount": 60,
    }
    parts = [{"content": {"parts": [{"text": piece}], "role": "model"}, "index": 0} for piece in PIECES]
    parts[-1]["finishReason"] = "STOP"
    about = {"modelVersion": "gemini-2.5-flash", "responseId": "r1"}
    return [{"candidates": [one], "usageMetadata": usage, **about} for one in parts]


@dataclass
class Streamed:
    way: Way
    body: bytes
    heard: Heard = field(default_factory=Heard)

    async def complete(self) -> LanguageModelReply:
        return await self.way.client.complete(replace(self.way.request(), sink=self.heard))


@pytest.fixture(params=["openai", "anthropic", "gemini"])
async def streamed(request: pytest.FixtureRequest) -> AsyncIterator[Streamed]:
    make, body = {
        "openai": (openai_way, sse(openai_events())),
        "anthropic": (anthropic_way, sse(anthropic_events(), named=True, done=False)),
        "gemini": (gemini_way, sse(gemini_events(), done=False)),
    }[request.param]
    async with scripted_server() as server:
        way = make(server, ModelSettings(model="some/model", api_base=server.url, timeout_s=2))
        server.answers(body, headers=EVENTS)
        try:
            yield Streamed(way, body)
        finally:
            await way.client.aclose()


async def test_the_reply_is_the_same_and_its_text_was_heard(streamed: Streamed) -> None:
    reply = await streamed.complete()
    assert streamed.heard.pieces == PIECES
    streamed.way.server.answers(streamed.way.success)
    plain_reply = await streamed.way.client.complete(streamed.way.request())
    # lm15 does not read the id of a streamed answer of every provider; nothing here depends on it.
    assert replace(reply, id=None) == replace(plain_reply, id=None)
    asked, plain = streamed.way.server.received
    assert "stream" in asked.path or asked.body["stream"] is True
    assert not ("stream" in plain.path or plain.body.get("stream"))


async def test_text_is_heard_before_the_answer_ends(streamed: Streamed) -> None:
    streamed.way.server.body = streamed.body[: len(streamed.body) * 2 // 3]
    streamed.way.server.mode = "stall"
    task = asyncio.create_task(streamed.complete())
    async with asyncio.timeout(20):
        await streamed.heard.first.wait()
        assert not task.done()
        with pytest.raises(errors.LMTimeoutError):
            await task


async def test_giving_up_closes_the_connection(streamed: Streamed) -> None:
    streamed.way.server.body = streamed.body[: len(streamed.body) * 2 // 3]
    streamed.way.server.mode = "stall"
    task = asyncio.create_task(streamed.complete())
    async with asyncio.timeout(20):
        await streamed.heard.first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await streamed.way.server.left.wait()


async def test_a_connection_that_breaks_is_a_transport_error(streamed: Streamed) -> None:
    streamed.way.server.body = streamed.body[: len(streamed.body) * 2 // 3]
    streamed.way.server.mode = "half"
    with pytest.raises(errors.LMTransportError):
        await streamed.complete()
    assert streamed.heard.pieces


async def test_a_stream_without_its_end_is_no_answer(streamed: Streamed) -> None:
    cut = streamed.body.rfind(b"\n\n", 0, len(streamed.body) * 2 // 3) + 2
    streamed.way.server.answers(streamed.body[:cut], headers=EVENTS)
    with pytest.raises(errors.LMError) as raised:
        await streamed.complete()
    assert raised.value.kind == "unavailable"


async def test_garbage_in_a_stream_is_no_answer(streamed: Streamed) -> None:
    cut = streamed.body.rfind(b"\n\n", 0, len(streamed.body) * 2 // 3) + 2
    streamed.way.server.answers(streamed.body[:cut] + b'data: {"choi\n\ndata: 1\n\n', headers=EVENTS)
    with pytest.raises(errors.LMError) as raised:
        await streamed.complete()
    assert raised.value.kind == "unavailable"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, errors.LMAuthError), (429, errors.LMRateLimitError), (500, errors.LMServerError)],
)
async def test_a_refusal_is_what_it_is_without_a_sink(
    streamed: Streamed, status: int, kind: type[errors.LMError]
) -> None:
    said = streamed.way.unauthorized if status == 401 else streamed.way.limited
    streamed.way.server.answers(said if status != 500 else {"error": {"message": "no"}}, status)
    with pytest.raises(kind) as raised:
        await streamed.complete()
    assert KEY not in str(raised.value)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        yield running


async def openai(
    server: ScriptedServer, body: Any, headers: dict[str, str] = EVENTS
) -> tuple[LanguageModelReply, list[str]]:
    server.answers(body, headers=headers)
    way = openai_way(server, ModelSettings(model="openai/x", timeout_s=2))
    heard = Heard()
    try:
        return await way.client.complete(replace(way.request(), sink=heard)), heard.pieces
    finally:
        await way.client.aclose()


async def test_openai_is_asked_for_a_stream_with_its_usage(server: ScriptedServer) -> None:
    await openai(server, sse(openai_events()))
    (asked,) = server.received
    assert asked.body["stream"] is True
    assert asked.body["stream_options"] == {"include_usage": True}
    assert asked.headers["accept"] == "text/event-stream"


async def test_connections_are_used_again_after_a_stream(server: ScriptedServer) -> None:
    server.answers(sse(openai_events()), headers=EVENTS)
    way = openai_way(server, ModelSettings(model="openai/x", timeout_s=2))
    for _ in range(3):
        await way.client.complete(replace(way.request(), sink=Heard()))
    await way.client.aclose()
    assert server.connections == 1


async def test_a_server_that_does_not_stream_answers_all_the_same(server: ScriptedServer) -> None:
    plain = {"choices": [{"message": {"content": "Paris"}, "finish_reason": "stop"}]}
    reply, heard = await openai(server, plain, {})
    assert (reply.text, heard) == ("Paris", [])


async def test_neither_done_nor_usage_have_to_come(server: ScriptedServer) -> None:
    body = sse(openai_events()[:-1], done=False)
    for ended in (body, body.rstrip()):
        reply, _ = await openai(server, ended)
        assert (reply.text, reply.finish_reason, reply.usage.total_tokens) == (ANSWER, "stop", None)


async def test_comments_and_other_fields_are_nothing(server: ScriptedServer) -> None:
    body = b"\xef\xbb\xbf: PROCESSING\r\nretry: 5\r\nid: 7\r\n\r\n" + sse(openai_events()).replace(
        b"\n", b"\r\n"
    )
    reply, _ = await openai(server, body)
    assert reply.text == ANSWER


async def test_the_first_letters_of_a_character_come_before_its_last(server: ScriptedServer) -> None:
    reply, heard = await openai(server, sse(openai_events(["a\ud83d", "\ude00b", "\ud83d", "c", "\ud83d"])))
    assert reply.text == "a\U0001f600b\ud83dc\ud83d"
    assert heard == ["a", "\U0001f600b", "\ud83dc", "\ud83d"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "slow down", "code": "rate_limit_exceeded"}, errors.LMRateLimitError),
        ({"message": f"overloaded {KEY}", "code": 502}, errors.LMServerError),
    ],
)
async def test_an_error_in_the_middle_is_the_providers(
    server: ScriptedServer, error: dict[str, Any], kind: type[errors.LMError]
) -> None:
    with pytest.raises(kind) as raised:
        await openai(server, sse([*openai_events()[:4], {"error": error}]))
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    "event",
    [
        [],
        3,
        {"choices": 3},
        {"choices": [3]},
        chunk([]),  # type: ignore[arg-type]
        chunk({"content": 3}),
        chunk({"tool_calls": [3]}),
        {"choices": [], "usage": {"prompt_tokens": "many"}},
    ],
)
async def test_events_of_another_shape_are_unexpected(server: ScriptedServer, event: Any) -> None:
    with pytest.raises(errors.LMUnexpectedError):
        await openai(server, sse([*openai_events()[:3], event, *openai_events()[-2:-1]]))


async def test_several_choices_are_refused_as_they_are_in_a_plain_answer(server: ScriptedServer) -> None:
    with pytest.raises(errors.LMUnsupportedFeatureError):
        await openai(server, sse([*openai_events(), chunk({"content": "x"}, index=1)]))


async def test_tools_refusals_and_thoughts_are_read_as_in_a_plain_answer(server: ScriptedServer) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"a": 1}'}}
    ended = chunk({}, finish_reason="tool_calls")
    reply, _ = await openai(
        server, sse([chunk({"tool_calls": [call]}), chunk({"tool_calls": [more]}), ended])
    )
    assert (reply.text, reply.finish_reason) == (None, "tool_call")
    refused = [chunk({"refusal": "I can"}), chunk({"refusal": "not."}), chunk({}, finish_reason="stop")]
    reply, _ = await openai(server, sse(refused))
    assert (reply.text, reply.refusal) == (None, "I cannot.")
    thought = [
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "Paris"}),
        chunk({}, finish_reason="stop"),
    ]
    reply, heard = await openai(server, sse(thought))
    assert (reply.text, heard) == ("Paris", ["Paris"])


async def test_an_endless_stream_is_cut_off(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.providers.language_models.http_client.LONGEST_REPLY", 1000)
    with pytest.raises(errors.LMUnexpectedError, match="more than 1000 bytes"):
        await openai(server, sse(openai_events() * 100))


async def test_another_dialect_is_refused_before_anything_is_sent(server: ScriptedServer) -> None:
    way = openai_way(server, ModelSettings(model="openai/x"))
    request = replace(way.request(), dialect=Dialect("gemini"), sink=Heard())
    with pytest.raises(errors.LMConfigurationError):
        await way.client.complete(request)
    await way.client.aclose()
    assert isinstance(request, LanguageModelRequest) and server.received == []
