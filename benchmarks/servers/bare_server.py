"""The least a Python server can do: plain ASGI on uvicorn, one call by aiohttp, no validation, no record.

python -m benchmarks.servers.bare_server PORT LM_PORT
"""

import sys
from typing import Any

import aiohttp
import orjson
import uvicorn

from benchmarks.cases import SLOW_MS

# About as long as the prompt that DSPy writes for a small signature.
_SYSTEM = {"role": "system", "content": "Your input fields are: " + "x" * 700}
_HEADERS = {"content-type": "application/json", "authorization": "Bearer benchmark"}


class Bare:
    def __init__(self, lm_port: int) -> None:
        self._url = f"http://127.0.0.1:{lm_port}"
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        inputs = orjson.loads((await receive())["body"])
        request = {
            "model": "benchmark",
            "messages": [_SYSTEM, {"role": "user", "content": inputs["question"]}],
            "temperature": 0.0,
            "max_tokens": 1000,
        }
        delay = f"/delay/{SLOW_MS}" if scope["path"] == "/slow" else ""
        async with self._session.post(
            f"{self._url}{delay}/v1/chat/completions", data=orjson.dumps(request), headers=_HEADERS
        ) as reply:
            completion = orjson.loads(await reply.read())
        answer = completion["choices"][0]["message"]["content"].split("\n")[1]
        body = orjson.dumps({"answer": answer})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        Bare(int(sys.argv[2])),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=False,
        log_level="warning",
        lifespan="off",
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )
