"""A language model that costs next to nothing, so that the servers are what is measured.

python -m benchmarks.canned_lm PORT

Speaks the OpenAI chat completions protocol over keep-alive connections. A path that starts with /delay/500/
answers after 500 ms, one with /stream/10/20/ streams ten pieces, one each 20 ms, where a stream is asked for. The
answer quotes the case number of the request, so that a mixed-up answer is noticed.
"""

import asyncio
import sys
import time
from typing import cast

import uvloop

from benchmarks.cases import TAG, TAG_LENGTH

_ANSWER = "[[ ## answer ## ]]\\nIt says %s.\\n\\n[[ ## completed ## ]]"
_TRIAGE = (
    "[[ ## team ## ]]\\nbilling\\n\\n[[ ## urgent ## ]]\\nTrue\\n\\n[[ ## score ## ]]\\n0.75\\n\\n"
    '[[ ## tags ## ]]\\n[\\"%s\\", \\"parcel\\"]\\n\\n[[ ## completed ## ]]'
)
_COMPLETION = (
    '{"id":"chatcmpl-benchmark","object":"chat.completion","created":1700000000,"model":"benchmark",'
    '"choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":200,"completion_tokens":40,"total_tokens":240}}'
)


def _template(content: str) -> bytes:
    """A whole response; the case number has a fixed length, and so the body."""
    body = _COMPLETION % (content % ("%" * TAG_LENGTH))
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return (head + body).encode()


_HOLE = b"%" * TAG_LENGTH
_ANSWER_PARTS = _template(_ANSWER).split(_HOLE)
_TRIAGE_PARTS = _template(_TRIAGE).split(_HOLE)


def respond(request: bytes) -> bytes:
    at = request.rfind(TAG)
    if at < 0:
        return b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
    before, after = _TRIAGE_PARTS if b"[[ ## team ## ]]" in request else _ANSWER_PARTS
    return before + request[at : at + TAG_LENGTH] + after


class CannedProtocol(asyncio.Protocol):
    """One request at a time on a connection, as HTTP/1.1 clients without pipelining send them."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not derived from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = received[:end].lower()
        _, _, length = head.partition(b"content-length:")
        if len(received) < end + 4 + int(length.split(b"\r\n", 1)[0]):
            return
        self._received = b""
        path = head.split(b" ", 2)[1]
        if path.startswith(b"/stream/") and b'"stream":true' in received:
            _, _, pieces, interval_ms, _ = path.split(b"/", 4)
            self._stream(int(pieces), float(interval_ms) / 1000)
            return
        response = respond(received)
        if path.startswith(b"/delay/"):
            delay_ms = int(path.split(b"/", 3)[2])
            asyncio.get_running_loop().call_later(delay_ms / 1000, self._transport.write, response)
        else:
            self._transport.write(response)

    def _stream(self, pieces: int, interval_s: float) -> None:
        loop = asyncio.get_running_loop()
        first = loop.time()
        self._transport.write(_STREAM_HEAD)

        def write(number: int) -> None:
            if self._transport.is_closing():
                return
            if number == pieces:
                self._transport.write(_STREAM_END)
                return
            self._transport.write(_piece(b"@%d" % (time.monotonic_ns() // 1000)))
            loop.call_at(first + (number + 1) * interval_s, write, number + 1)

        loop.call_at(first + interval_s, write, 0)


def _piece(content: bytes) -> bytes:
    """One event in one chunk, as servers send them."""
    event = _PIECE % content
    return b"%x\r\n%s\r\n" % (len(event), event)


_PIECE = (
    b'data: {"id":"chatcmpl-benchmark","object":"chat.completion.chunk","created":1700000000,"model":"benchmark",'
    b'"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}\n\n'
)
_ENDING = (
    b'data: {"id":"chatcmpl-benchmark","model":"benchmark","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":200,"completion_tokens":40,"total_tokens":240}}\n\ndata: [DONE]\n\n'
)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    + _piece(b"[[ ## answer ## ]]\\n")
)
_STREAM_END = b"%x\r\n%s\r\n0\r\n\r\n" % (len(_ENDING), _ENDING)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(CannedProtocol, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
