"""The simulator as an OpenAI-compatible server.

A raw ASGI application, because load tests need a partner that costs little.

POST /v1/chat/completions    with and without stream
POST /v1/embeddings
POST /v1/files               for fine-tuning
POST /v1/fine_tuning/jobs    and GET /v1/fine_tuning/jobs/ID, POST /v1/fine_tuning/jobs/ID/cancel
GET  /v1/models
/_simulator/...              control, see control.py
"""

import array
import base64
from collections.abc import Awaitable, Callable, Mapping
from email import message_from_bytes
from typing import Any

import orjson

from dspex.kit.errors import DspexError, Invalid, Missing
from dspex.providers.language_models.simulator import control, delivery
from dspex.providers.language_models.simulator.chat import read_call
from dspex.providers.language_models.simulator.engine import Simulator

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MODEL = "simulator"
_LARGEST_BODY = 32 * 1024 * 1024
_STATUS = {"invalid": 400, "missing": 404}


class SimulatorApp:
    """`allow_control` opens the control addresses to everyone who can reach the server."""

    def __init__(self, simulator: Simulator, *, allow_control: bool) -> None:
        self.simulator = simulator
        self.allow_control = allow_control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the simulator speaks HTTP only, not {scope['type']}")
        try:
            await self._route(scope, receive, send)
        except DspexError as error:
            body = {
                "error": {"message": error.message, "type": error.kind, "code": error.code},
                "simulated": True,
            }
            await delivery.send_json(send, _STATUS.get(error.kind, 500), body)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if method == "POST" and path == "/v1/chat/completions":
            await self._chat(await _read(receive), scope, receive, send)
        elif method == "POST" and path == "/v1/embeddings":
            await self._embeddings(_document(await _read(receive)), scope, receive, send)
        elif path == "/v1/files" or path.startswith("/v1/fine_tuning/jobs"):
            await delivery.send_json(send, 200, await self._tune(method, path, scope, receive))
        elif method == "GET" and path == "/v1/models":
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "dspex"}
            await delivery.send_json(send, 200, {"object": "list", "data": [model], "simulated": True})
        elif path.startswith("/_simulator/") and self.allow_control:
            body = _document(await _read(receive)) if method == "POST" else {}
            name = path.removeprefix("/_simulator/")
            await delivery.send_json(send, 200, control.obey(self.simulator, method, name, body))
        else:
            body = {
                "error": {
                    "message": f"nothing answers {method} {path}",
                    "type": "missing",
                    "code": "no_route",
                }
            }
            await delivery.send_json(send, 404, body | {"simulated": True})

    async def _chat(self, raw: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        document = _document(raw)
        call = read_call(document)
        outcome = self.simulator.answer(call, document)
        whole = await delivery.deliver(
            outcome, document, scope, receive, send, chunk_interval=self.simulator.chunk_interval
        )
        if not whole:
            self.simulator.left()

    async def _tune(self, method: str, path: str, scope: Scope, receive: Receive) -> dict[str, Any]:
        raw = await _read(receive)
        if method == "POST" and path == "/v1/files":
            return self.simulator.tuning.upload(_file_of(scope, raw))
        job = path.removeprefix("/v1/fine_tuning/jobs").strip("/")
        if method == "POST" and not job:
            wanted = _document(raw)
            return self.simulator.tuning.begin(str(wanted.get("model")), str(wanted.get("training_file")))
        if method == "POST" and job.endswith("/cancel"):
            return self.simulator.tuning.cancel(job.removesuffix("/cancel"))
        if method == "GET" and job:
            return self.simulator.tuning.look(job)
        raise Missing(f"nothing answers {method} {path}", code="no_route")

    async def _embeddings(
        self, document: Mapping[str, Any], scope: Scope, receive: Receive, send: Send
    ) -> None:
        texts = _texts(document.get("input"))
        dimensions = document.get("dimensions")
        if dimensions is not None and (type(dimensions) is not int or not 1 <= dimensions <= 8192):
            raise Invalid("dimensions must be a whole number from 1 to 8192")
        packed = document.get("encoding_format") == "base64"
        made = self.simulator.embed(texts, dimensions, document)
        data = []
        for index, vector in enumerate(made.vectors):
            value = base64.b64encode(array.array("f", vector).tobytes()).decode() if packed else vector
            data.append({"object": "embedding", "index": index, "embedding": value})
        answer = {
            "object": "list",
            "data": data,
            "model": document.get("model", MODEL),
            "usage": {"prompt_tokens": made.tokens, "total_tokens": made.tokens},
            "simulated": True,
        }
        await delivery.deliver_document(made.fault, made.delay, answer, scope, receive, send)


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        part = event.get("body", b"")
        size += len(part)
        if size > _LARGEST_BODY:
            raise Invalid(f"the request body is larger than {_LARGEST_BODY} bytes", code="body_too_large")
        parts.append(part)
        if not event.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _file_of(scope: Scope, raw: bytes) -> bytes:
    """The file in a form of multipart/form-data."""
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    form = message_from_bytes(b"content-type: " + kind + b"\r\n\r\n" + raw)
    for part in form.walk():
        if part.get_param("name", header="content-disposition") == "file":
            content = part.get_payload(decode=True)
            return content if isinstance(content, bytes) else b""
    raise Invalid("the form has no `file`", code="tuning_file_invalid")


def _document(raw: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the request body is not JSON: {error}", code="not_json") from None
    if not isinstance(document, dict):
        raise Invalid("the request body must be a JSON object", code="not_an_object")
    return document


def _texts(value: object) -> list[str]:
    """Texts, or tokens: a list of numbers is one input, as with OpenAI."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return value
        if all(isinstance(item, int) for item in value):
            return [" ".join(map(str, value))]
        if all(isinstance(item, list) for item in value):
            return [" ".join(map(str, item)) for item in value]
    raise Invalid("input must be a text, a list of texts, or tokens", code="embedding_input")
