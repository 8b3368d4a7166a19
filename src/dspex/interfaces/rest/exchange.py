"""Reading and answering HTTP on plain ASGI, for the paths where a framework's cost would show."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from dspex.datasets.records import FileFormat
from dspex.executions.service import CALLER_GONE
from dspex.interfaces.rest import problems
from dspex.kit import json
from dspex.kit.errors import DspexError, Invalid, TimedOut

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# A call that answers sooner is not worth watching its connection for.
WATCH_AFTER_S = 0.05
DEEP = 200
_JSON_LINES = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)
_TABLES: Mapping[str, FileFormat] = {"text/csv": "csv", "application/vnd.apache.parquet": "parquet"}
JSON = (b"content-type", b"application/json")
# Of a scope: its headers, which are asked for half a dozen times.
_BY_NAME = "dspex.headers"


class ClientGone(Exception):
    """The caller closed the connection before it sent its whole request."""


def header(scope: Scope, name: bytes) -> str | None:
    """The first of that name, given in lower case."""
    headers = scope.get(_BY_NAME)
    if headers is None:
        headers = scope[_BY_NAME] = dict(reversed(scope["headers"]))
    value = headers.get(name)
    return None if value is None else str(value, "latin-1")


async def read_body(scope: Scope, receive: Receive, limit: int, within_s: float) -> bytes:
    """The whole body. Raises Invalid (code body_too_large) as soon as it passes `limit` bytes, TimedOut

    (code body_too_slow) when it is not there after `within_s` seconds, ClientGone.
    """
    try:
        async with asyncio.timeout(within_s):
            return await _read(scope, receive, limit)
    except TimeoutError:
        raise TimedOut(
            f"The request body did not arrive within {within_s:g} s.", code="body_too_slow"
        ) from None


async def _read(scope: Scope, receive: Receive, limit: int) -> bytes:
    announced = header(scope, b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int) -> Invalid:
    return Invalid(f"The request body is larger than {limit} bytes, the limit.", code="body_too_large")


def read_json(scope: Scope, body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises Invalid (not_application_json, not_json, not_an_object)."""
    if media_type(scope) != "application/json":
        raise Invalid(
            "Send the body as JSON with `content-type: application/json`.", code="not_application_json"
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"The body is not JSON: {error}.", code="not_json") from None
    if not isinstance(document, dict):
        raise Invalid("The body must be a JSON object.", code="not_an_object")
    if body.count(b"[") + body.count(b"{") > DEEP and json.nests_deeper_than(document, DEEP):
        raise Invalid(f"The body is nested too deeply; {DEEP} levels are read.", code="nested_too_deeply")
    return document


def media_type(scope: Scope) -> str:
    """Of the body, in lower case and without its parameters."""
    return (header(scope, b"content-type") or "").partition(";")[0].strip().lower()


def is_json_lines(scope: Scope) -> bool:
    return media_type(scope) in _JSON_LINES


def dataset_format(scope: Scope) -> FileFormat | None:
    """The format of a file of examples; None for one document of JSON, which has its name within.

    JSON is a file where the address names the dataset.
    """
    given = media_type(scope)
    if given in _JSON_LINES:
        return "jsonl"
    if given == "application/json" and "name" in parse_qs(scope["query_string"].decode("latin-1")):
        return "json"
    return _TABLES.get(given)


def is_upload(scope: Scope) -> bool:
    """Whether the body is taken as it comes, within limits of its own.

    No page of another origin can send such types unasked either.
    """
    if scope["method"] != "POST":
        return False
    if scope["path"] == "/v1/datasets":
        return dataset_format(scope) is not None
    return scope["path"] == "/v1/batches" and is_json_lines(scope)


async def answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def answer_error(
    send: Send, error: DspexError, request_id: str, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    problem = problems.problem_of(error, request_id)
    await answer(send, problem["status"], problems.encode(problem), [*problems.headers_of(problem), *headers])


class CancelOnDisconnect:
    """Cancels the task it is entered in when the caller goes away, so that the model call ends as well.

    The watch starts late: most calls end before it would, and a task for each request is not free.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watch: asyncio.Task[None] | None = None
        self.gone = False

    def __enter__(self) -> "CancelOnDisconnect":
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(WATCH_AFTER_S, self._start, asyncio.current_task())
        return self

    def _start(self, task: asyncio.Task[Any] | None) -> None:
        self._watch = asyncio.create_task(self._wait(task))

    async def _wait(self, task: asyncio.Task[Any] | None) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if task is not None:
            self.gone = True
            task.cancel(CALLER_GONE)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
            # Its CancelledError refers to it by way of this: what a request was would stay for the collector.
            self._watch = None
