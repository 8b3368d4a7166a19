"""Sending an outcome over HTTP, whole or streamed, sound or broken on purpose."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from dspex.providers.language_models.simulator.chat import chunks, completion
from dspex.providers.language_models.simulator.engine import Outcome
from dspex.providers.language_models.simulator.faults import BROKEN_OFF, Fault

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
) -> bool:
    """Wait, then answer as the outcome says. False when the client left a stream before its end.

    A client that leaves ends a hang at once.
    """
    if outcome.delay:
        await asyncio.sleep(outcome.delay)
    if await _nothing_sent(outcome.fault, scope, receive, send):
        return True
    if request.get("stream"):
        options = request.get("stream_options")
        with_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        events = chunks(outcome, request.get("model"), with_usage=with_usage)
        kind = outcome.fault.kind if outcome.fault else None
        return await _stream(scope, receive, send, events, kind, chunk_interval)
    await _whole(outcome.fault, completion(outcome, request.get("model")), scope, receive, send)
    return True


async def deliver_document(
    fault: Fault | None,
    delay_s: float,
    document: Mapping[str, Any],
    scope: Mapping[str, Any],
    receive: Receive,
    send: Send,
) -> None:
    """The same for an answer that is never streamed."""
    if delay_s:
        await asyncio.sleep(delay_s)
    if not await _nothing_sent(fault, scope, receive, send):
        await _whole(fault, document, scope, receive, send)


async def _nothing_sent(fault: Fault | None, scope: Mapping[str, Any], receive: Receive, send: Send) -> bool:
    """Whether the fault is one of those that leave no part of the answer; then it has struck."""
    match fault:
        case Fault(kind="rate_limit" | "server_error"):
            await _refuse(send, limited=fault.kind == "rate_limit", retry_after=fault.retry_after)
        case Fault(kind="hang"):
            await _hang(receive, fault.seconds)
            await _close(scope, receive)
        case Fault(kind="garbage_body"):
            await _send_bytes(send, 200, _GARBAGE, (b"content-type", b"text/html"))
        case _:
            return False
    return True


async def _whole(
    fault: Fault | None, document: Mapping[str, Any], scope: Mapping[str, Any], receive: Receive, send: Send
) -> None:
    kind = None if fault is None else fault.kind
    if kind == "reset":
        await _reset(scope, receive)
        return
    body = orjson.dumps(document)
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


async def _hang(receive: Receive, seconds: float) -> bool:
    """Whether the client left meanwhile."""
    try:
        async with asyncio.timeout(seconds):
            await _until_gone(receive)
    except TimeoutError:
        return False
    return True


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
) -> bool:
    """Half of the events, then the end that the fault says; or all of them. False when the client left."""
    sent = events[: len(events) // 2] if kind in BROKEN_OFF else events
    await _start(send, 200, (b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))
    for event in sent:
        await _part(send, b"data: " + orjson.dumps(event) + b"\n\n")
        if interval and await _hang(receive, interval):
            return False
    if kind == "reset":
        await _reset(scope, receive)
    elif kind == "truncated_body":
        await _close(scope, receive)
    else:
        last = b'data: {"choices": [{"del\n\n' if kind == "malformed_json" else b"data: [DONE]\n\n"
        await _part(send, last)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    return True


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
