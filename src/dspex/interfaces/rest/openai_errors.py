"""Problems that clients of OpenAI's API read as well: they look for a member `error`."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from dspex.interfaces.rest.exchange import Send
from dspex.interfaces.rest.problems import MEDIA_TYPE
from dspex.kit import json

PATHS = frozenset({"/v1/embeddings"})
_TYPES: Mapping[str, str] = {
    "invalid": "invalid_request_error",
    "missing": "invalid_request_error",
    "unauthenticated": "authentication_error",
    "forbidden": "permission_error",
    "exhausted": "rate_limit_error",
}


def readable(send: Send) -> Send:
    """Sends on, with `error` added to problem documents; what DSPex answers problems with is one piece."""
    held: list[MutableMapping[str, Any]] = []

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start" and _is_problem(message):
            held.append(message)
            return
        if held:
            start, body = held.pop(), _with_error(message["body"])
            start["headers"] = [
                *(one for one in start["headers"] if one[0].lower() != b"content-length"),
                (b"content-length", str(len(body)).encode()),
            ]
            await send(start)
            message["body"] = body
        await send(message)

    return sending


def _is_problem(start: Mapping[str, Any]) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(MEDIA_TYPE.encode())
        for name, value in start["headers"]
    )


def _with_error(body: bytes) -> bytes:
    problem: dict[str, Any] = json.loads(body)
    pointers = [one["pointer"] for one in problem.get("errors", ())]
    error = {
        "message": problem["detail"],
        "type": _TYPES.get(problem["kind"], "server_error"),
        "param": pointers[0].removeprefix("/") if pointers else None,
        "code": problem["code"],
    }
    return json.dumps({**problem, "error": error})
