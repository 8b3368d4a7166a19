"""The wire of a stream, cut anywhere."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.gateway.errors import LMError
from dspex.gateway.records import LanguageModelReply
from dspex.providers.language_models.event_stream import EventDecoder
from dspex.providers.language_models.openai_chat import decode
from dspex.providers.language_models.openai_chat_stream import StreamedCompletion

HEADERS = {"content-type": "text/event-stream"}
line = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=12)
events = st.lists(st.lists(line, min_size=1, max_size=3), max_size=5)


class Silent:
    def begin(self, model: str) -> None: ...

    def add(self, text: str) -> None: ...


def decoded(body: bytes, cuts: list[int]) -> list[str]:
    decoder, found, start = EventDecoder(), [], 0
    for end in [*sorted({one % (len(body) + 1) for one in cuts}), len(body)]:
        if end > start:
            found += decoder.feed(body[start:end])
            start = end
    return [one.decode() for one in [*found, *decoder.close()]]


@given(
    events,
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 1000), max_size=200),
    st.sampled_from(["", ":", ": comment", "event: x", "id: 3", "data", "unknown: 1"]),
    st.booleans(),
)
def test_events_come_whole_whatever_way_they_are_cut(
    given_events: list[list[str]], ending: str, cuts: list[int], between: str, marked: bool
) -> None:
    lines: list[str] = []
    for one in given_events:
        lines += [between, *(f"data: {text}" for text in one), ""]
    body = ("\ufeff" if marked else "") + "".join(text + ending for text in lines)
    whole = ["\n".join(one) for one in given_events]
    assert decoded(body.encode(), cuts) == [one for one in whole if one]


@given(
    text=st.text(max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=20),
    reason=st.sampled_from(["stop", "length", "content_filter", "odd"]),
    usage=st.sampled_from([None, {"prompt_tokens": 3, "completion_tokens": 4}, {"prompt_tokens": -1}, []]),
    ascii_only=st.booleans(),
)
def test_the_reply_is_that_of_the_plain_answer(
    text: str, cuts: list[int], reason: str, usage: Any, ascii_only: bool
) -> None:
    about: dict[str, Any] = {"id": "c1", "model": "m1"} | ({} if usage is None else {"usage": usage})
    plain = about | {"choices": [{"message": {"content": text}, "finish_reason": reason}]}
    places = [0, *sorted({one % (len(text) + 1) for one in cuts}), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    chunks: list[dict[str, Any]] = [
        about | {"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    whole = StreamedCompletion(200, HEADERS, "asked", Silent())

    def streamed() -> LanguageModelReply:
        for one in chunks:
            whole.add(json.dumps(one, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
        whole.add(b"[DONE]")
        return whole.reply()

    assert _outcome(streamed) == _outcome(lambda: decode(200, HEADERS, json.dumps(plain).encode(), "asked"))


def _outcome(read: Any) -> Any:
    try:
        return read()
    except LMError as error:
        return type(error)


@pytest.mark.parametrize("text", ["data: a", "data: a\n", "data: a\n\n", "data: a\r"])
def test_the_last_event_counts_without_its_empty_line(text: str) -> None:
    assert decoded(text.encode(), list(range(20))) == ["a"]
