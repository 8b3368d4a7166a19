"""A streamed chat completion, put together again: what is read in the end is what a plain answer would have held."""

import json
from collections.abc import Mapping
from typing import Any

import orjson

from dspex.gateway.errors import LMProviderError, LMTransportError, LMUnexpectedError
from dspex.gateway.records import LanguageModelReply, TextSink
from dspex.providers.language_models.openai_chat_errors import failure, from_envelope, retry_after
from dspex.providers.language_models.openai_chat_replies import read_document

DONE = b"[DONE]"
# Spoken beside the content; whether there was any decides what an answer without content means.
_ASIDE = ("refusal", "reasoning_content", "reasoning")


class StreamedCompletion:
    """Takes the data of each event; `reply` reads the whole. `model` is the one asked for, when no chunk names one."""

    def __init__(self, status: int, headers: Mapping[str, str], model: str, sink: TextSink) -> None:
        self._status = status
        self._headers = headers
        self._model = model
        self._sink = sink
        self._head: dict[str, Any] = {}
        self._texts: list[str] = []
        self._half = ""
        self._aside: dict[str, list[str]] = {}
        self._calls: dict[Any, dict[str, Any]] = {}
        self._choices: set[Any] = set()
        self._finish_reason: Any = None
        self.done = False

    def add(self, data: bytes) -> None:
        """Raises the error that an event reports, LMProviderError for no JSON, LMUnexpectedError for another shape."""
        if data == DONE:
            self.done = True
            return
        chunk = self._parsed(data)
        if not isinstance(chunk, dict):
            raise self._unexpected("an event is no JSON object", data)
        error = chunk.get("error")
        if isinstance(error, dict):
            raise from_envelope(error, self._status, self._headers)
        for name in ("id", "model", "usage", "simulated"):
            if chunk.get(name) is not None:
                self._head[name] = chunk[name]
        choices = chunk.get("choices") or ()
        if not isinstance(choices, list | tuple) or not all(isinstance(one, dict) for one in choices):
            raise self._unexpected("`choices` of an event is not an array of objects", data)
        for choice in choices:
            self._choices.add(repr(choice.get("index", 0)))
            if len(self._choices) == 1:
                self._choice(choice, data)

    def reply(self) -> LanguageModelReply:
        """The whole answer. Raises LMTransportError when it broke off, and as reading a plain one does."""
        if not self.done and self._finish_reason is None:
            raise LMTransportError(
                "The model's server ended the stream before the answer was whole; try again."
            )
        if self._half:
            self._say(self._half)
        message: dict[str, Any] = {
            "content": "".join(self._texts),
            "tool_calls": list(self._calls.values()),
            **{name: "".join(texts) for name, texts in self._aside.items()},
        }
        choice = {"message": message, "finish_reason": self._finish_reason}
        # Several choices are refused as they are in a plain answer; the others' content is of no use.
        choices = [choice] * max(len(self._choices), 1)
        return read_document({**self._head, "choices": choices}, self._status, self._headers, self._model)

    def _choice(self, choice: Mapping[str, Any], data: bytes) -> None:
        if choice.get("finish_reason") is not None:
            self._finish_reason = choice["finish_reason"]
        delta = choice.get("delta")
        if delta is None:
            return
        if not isinstance(delta, dict):
            raise self._unexpected("`delta` of an event is not an object", data)
        content = delta.get("content")
        if isinstance(content, str):
            if content:
                self._content(content)
        elif content is not None:
            raise self._unexpected("`content` of an event is no text", data)
        for name in _ASIDE:
            if isinstance(delta.get(name), str):
                self._aside.setdefault(name, []).append(delta[name])
        for call in delta.get("tool_calls") or ():
            self._call(call, data)

    def _content(self, text: str) -> None:
        if self._half:
            text, self._half = (
                (self._half + text).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass"),
                "",
            )
        if "\ud800" <= text[-1] <= "\udbff":
            # Servers that count in UTF-16 may cut a character in two.
            text, self._half = text[:-1], text[-1]
        if text:
            self._say(text)

    def _say(self, text: str) -> None:
        self._texts.append(text)
        self._sink.add(text)

    def _call(self, call: Any, data: bytes) -> None:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise self._unexpected("`tool_calls` of an event is not an array of functions", data)
        known = self._calls.setdefault(
            repr(call.get("index")), {"type": "function", "function": {"name": "", "arguments": ""}}
        )["function"]
        for name in known:
            if isinstance(function.get(name), str):
                known[name] += function[name]

    def _parsed(self, data: bytes) -> Any:
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass
        try:
            # Python's json takes more, such as half of a character that another event completes.
            return json.loads(data)
        except (ValueError, RecursionError):
            said = f"no JSON but {data[:200].decode(errors='replace')!r}"
            raise failure(LMProviderError, said, self._status, retry_after(self._headers)) from None

    def _unexpected(self, problem: str, data: bytes) -> LMUnexpectedError:
        return LMUnexpectedError(
            f"The stream is no chat completion: {problem}. Check api_base in models.registry. The event starts: "
            f"{data[:200].decode(errors='replace')!r}",
            status=self._status,
        )
