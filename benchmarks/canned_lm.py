"""A language model that costs next to nothing, so that the servers are what is measured.

python -m benchmarks.canned_lm PORT

Speaks the OpenAI chat completions protocol over keep-alive connections. A path that starts with /delay/500/
answers after 500 ms. The answer quotes the case number of the request, so that a mixed-up answer is noticed.
"""

import asyncio
import sys
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
        response = respond(received)
        if path.startswith(b"/delay/"):
            delay_ms = int(path.split(b"/", 3)[2])
            asyncio.get_running_loop().call_later(delay_ms / 1000, self._transport.write, response)
        else:
            self._transport.write(response)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(CannedProtocol, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
