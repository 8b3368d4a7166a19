"""Sending an outcome over HTTP, whole or streamed, sound or broken on purpose."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from dspex.providers.language_models.simulator.chat import chunks, completion
from dspex.providers.language_models.simulator.engine import Outcome

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_JSON = (b"content-type", b"application/json")
_GARBAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
# Linger on, for no time: closing then sends RST instead of FIN.
_NO_LINGER = struct.pack("ii", 1, 0)


async def deliver(
    outcome: Outcome,
    request: Mapping[str, Any],
    scope: Mapping[str, Any],
    receive: Receive,
    send: Send,
    *,
    chunk_interval: float,
) -> None:
    """Wait, then answer as the outcome says. A client that leaves ends a hang at once."""
    if outcome.delay:
        await asyncio.sleep(outcome.delay)
    kind = outcome.fault.kind if outcome.fault else None
    if outcome.fault and kind in {"rate_limit", "server_error"}:
        await _refuse(send, limited=kind == "rate_limit", retry_after=outcome.fault.retry_after)
    elif outcome.fault and kind == "hang":
        await _hang(receive, outcome.fault.seconds)
        await _close(scope, receive)
    elif kind == "garbage_body":
        await _send_bytes(send, 200, _GARBAGE, (b"content-type", b"text/html"))
    elif request.get("stream"):
        options = request.get("stream_options")
        with_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        events = chunks(outcome, request.get("model"), with_usage=with_usage)
        await _stream(scope, receive, send, events, kind, chunk_interval)
    elif kind == "reset":
        await _reset(scope, receive)
    else:
        body = orjson.dumps(completion(outcome, request.get("model")))
        if kind == "truncated_body":
            await _start(send, 200, _JSON, (b"content-length", b"%d" % len(body)))
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            await _close(scope, receive)
        else:
            await _send_bytes(send, 200, body[: len(body) // 2] if kind == "malformed_json" else body, _JSON)


async def send_json(send: Send, status: int, document: Mapping[str, Any]) -> None:
    await _send_bytes(send, status, orjson.dumps(document, default=str), _JSON)


async def _refuse(send: Send, *, limited: bool, retry_after: float | None) -> None:
    error = {
        "message": "simulated rate limit" if limited else "simulated server failure",
        "type": "rate_limit_error" if limited else "server_error",
        "code": "rate_limit_exceeded" if limited else "server_error",
    }
    headers = [_JSON]
    if retry_after is not None:
        headers.append((b"retry-after", b"%g" % retry_after))
    await _send_bytes(
        send, 429 if limited else 500, orjson.dumps({"error": error, "simulated": True}), *headers
    )


async def _hang(receive: Receive, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await _until_gone(receive)
    except TimeoutError:
        return


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _close(scope: Mapping[str, Any], receive: Receive) -> None:
    _transport(scope).close()
    await _until_gone(receive)


async def _stream(
    scope: Mapping[str, Any],
    receive: Receive,
    send: Send,
    events: list[dict[str, Any]],
    kind: str | None,
    interval: float,
) -> None:
    """Half of the events, then the end that the fault says; or all of them."""
    broken = kind in {"reset", "truncated_body", "malformed_json"}
    sent = events[: len(events) // 2] if broken else events
    await _start(send, 200, (b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))
    for event in sent:
        await _part(send, b"data: " + orjson.dumps(event) + b"\n\n")
        if interval:
            await asyncio.sleep(interval)
    if kind == "reset":
        await _reset(scope, receive)
    elif kind == "truncated_body":
        await _close(scope, receive)
    else:
        last = b'data: {"choices": [{"del\n\n' if kind == "malformed_json" else b"data: [DONE]\n\n"
        await _part(send, last)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _part(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _send_bytes(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await _start(send, status, *headers, (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.body", "body": body})


async def _start(send: Send, status: int, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


def _transport(scope: Mapping[str, Any]) -> asyncio.Transport:
    """Put there by serving.py; ASGI itself gives no way to break a connection."""
    transport: asyncio.Transport = scope["extensions"]["simulator.transport"]
    return transport


async def _reset(scope: Mapping[str, Any], receive: Receive) -> None:
    transport = _transport(scope)
    # A duplicate descriptor, because the loop's socket object does not take socket options everywhere.
    with socket.socket(fileno=_duplicate(transport)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
    await _until_gone(receive)


def _duplicate(transport: asyncio.Transport) -> int:
    descriptor: int = transport.get_extra_info("socket").fileno()
    return socket.dup(descriptor)
