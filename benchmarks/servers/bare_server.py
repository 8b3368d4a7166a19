"""The least a Python server can do: plain ASGI on uvicorn, one call by aiohttp, no validation, no record.

/cached keeps the answers in a dict, /short and /long stream.

python -m benchmarks.servers.bare_server PORT LM_PORT
"""

import sys
from typing import Any

import aiohttp
import orjson
import uvicorn

from benchmarks.cases import PACES, SLOW_MS, Pace

# About as long as the prompt that DSPy writes for a small signature.
_SYSTEM = {"role": "system", "content": "Your input fields are: " + "x" * 700}
_PACES = {f"/{pace.name}": pace for pace in PACES}
_HEADERS = {"content-type": "application/json", "authorization": "Bearer benchmark"}


class Bare:
    def __init__(self, lm_port: int) -> None:
        self._url = f"http://127.0.0.1:{lm_port}"
        self._session: aiohttp.ClientSession | None = None
        self._answers: dict[str, str] = {}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        inputs = orjson.loads((await receive())["body"])
        if (pace := _PACES.get(scope["path"])) is not None:
            await self._stream(inputs, pace, send)
            return
        answer = self._answers.get(inputs["question"])
        if answer is None:
            answer = await self._ask(inputs, slow=scope["path"] == "/slow")
        if scope["path"] == "/cached":
            self._answers[inputs["question"]] = answer
        body = orjson.dumps({"answer": answer})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, inputs: dict[str, Any], pace: Pace, send: Any) -> None:
        """Passes the model's events on as they come."""
        async with self._post(inputs, pace.path, stream=True) as reply:
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for chunk in reply.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _post(self, inputs: dict[str, Any], path: str, **more: Any) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        request = {
            "model": "benchmark",
            "messages": [_SYSTEM, {"role": "user", "content": inputs["question"]}],
            "temperature": 0.0,
            "max_tokens": 1000,
            **more,
        }
        return self._session.post(
            f"{self._url}{path}/v1/chat/completions", data=orjson.dumps(request), headers=_HEADERS
        )

    async def _ask(self, inputs: dict[str, Any], *, slow: bool) -> str:
        async with self._post(inputs, f"/delay/{SLOW_MS}" if slow else "") as reply:
            completion = orjson.loads(await reply.read())
        answer: str = completion["choices"][0]["message"]["content"].split("\n")[1]
        return answer


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
