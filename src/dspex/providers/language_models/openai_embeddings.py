"""The embeddings wire of OpenAI-compatible servers: both ways without I/O, and a client."""

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from dspex.configuration.models import MOST_DIMENSIONS, ModelSettings
from dspex.gateway.errors import LMProviderError, LMUnexpectedError
from dspex.gateway.records import EmbeddingReply, EmbeddingRequest, Usage
from dspex.gateway.vectors import NUMBER_BYTES, is_vector
from dspex.kit import json
from dspex.providers.language_models.openai_chat_errors import (
    failure,
    from_envelope,
    from_status,
    retry_after,
)
from dspex.providers.language_models.openai_server import OpenAIServer

if TYPE_CHECKING:
    import aiohttp

# 2048 vectors of 1536 numbers in decimal digits.
LONGEST_REPLY = 64 * 1024 * 1024


class OpenAIEmbeddingClient:
    """`gateway.ports.EmbeddingClient`."""

    def __init__(self, base_url: str, key: str | None, settings: ModelSettings) -> None:
        """Raises LMConfigurationError for an address that is not http or https."""
        self._server = OpenAIServer(base_url, "/embeddings", key, settings, longest_reply=LONGEST_REPLY)
        self._encoding = settings.embedding.encoding

    async def embed(self, request: EmbeddingRequest) -> EmbeddingReply:
        """One POST."""

        async def read(response: "aiohttp.ClientResponse") -> EmbeddingReply:
            body = await self._server.body(response)
            return decode(response.status, response.headers, body, request)

        body = encode(request, self._encoding)
        return await self._server.post(body, read, traceparent=request.traceparent)

    async def aclose(self) -> None:
        await self._server.aclose()


def encode(request: EmbeddingRequest, encoding: str) -> bytes:
    """The request body."""
    body: dict[str, Any] = {
        "model": request.dialect.model,
        "input": request.texts,
        "encoding_format": encoding,
    }
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    return orjson.dumps(body)


def decode(status: int, headers: Mapping[str, str], body: bytes, request: EmbeddingRequest) -> EmbeddingReply:
    """The reply in a response, whichever of the two encodings the server chose. Header names any case.

    Raises the LMError of an error status, of an error in a 200, of no JSON; LMUnexpectedError for another count or
    other dimensions than were asked for, vectors of different lengths, and what is no number.
    """
    if status >= 400:
        raise from_status(status, headers, body)
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        start = repr(body[:200].decode(errors="replace")) if body else "nothing"
        raise failure(LMProviderError, f"no JSON but {start}", status, retry_after(headers)) from None
    if isinstance(data, dict) and isinstance(data.get("error"), dict):
        raise from_envelope(data["error"], status, headers)
    try:
        vectors = _vectors(data, request)
        return EmbeddingReply(
            vectors,
            str(data.get("model") or request.dialect.model),
            _usage(data.get("usage")).credible(),
            data.get("simulated") is True,
        )
    except _Unexpected as problem:
        raise LMUnexpectedError(
            f"The answer has no embeddings as they were asked for: {problem}. Check the model and api_base in "
            "models.registry.",
            status=status,
        ) from None


class _Unexpected(Exception):
    """What is wrong with the body."""


def _vectors(data: Any, request: EmbeddingRequest) -> tuple[bytes, ...]:
    items = data.get("data") if isinstance(data, dict) else None
    if not isinstance(items, list):
        raise _Unexpected("`data` is not an array")
    if len(items) != len(request.texts):
        raise _Unexpected(f"{len(items)} vectors for {len(request.texts)} texts")
    vectors = tuple(map(_vector, _in_order(items)))
    lengths = {len(one) // NUMBER_BYTES for one in vectors}
    if len(lengths) != 1:
        raise _Unexpected("vectors of different lengths")
    length = lengths.pop()
    if length > MOST_DIMENSIONS:
        raise _Unexpected(f"{length} dimensions, more than {MOST_DIMENSIONS}")
    if request.dimensions not in (None, length):
        raise _Unexpected(f"{length} dimensions where {request.dimensions} were asked for")
    return vectors


def _in_order(items: Sequence[Any]) -> Sequence[Any]:
    """By their `index`, where servers say one; most answer in order anyway."""
    if not all(isinstance(one, dict) for one in items):
        raise _Unexpected("`data` holds something else than objects")
    indices = [one.get("index") for one in items]
    if all(index is None for index in indices):
        return items
    if sorted(index for index in indices if type(index) is int) != list(range(len(items))):
        raise _Unexpected("`index` does not count the texts")
    return sorted(items, key=lambda one: int(one["index"]))


def _vector(item: Mapping[str, Any]) -> bytes:
    given: Any = item.get("embedding")
    try:
        packed = (
            base64.b64decode(given, validate=True)
            if isinstance(given, str)
            else struct.pack(f"<{len(given)}f", *given)
        )
    except (TypeError, struct.error, OverflowError, binascii.Error, ValueError):
        raise _Unexpected("an `embedding` is neither base64 nor an array of numbers") from None
    if not is_vector(packed):
        raise _Unexpected("an `embedding` holds no finite float32 numbers")
    return packed


def _usage(usage: Any) -> Usage:
    """Embedding models write nothing: they have no output tokens to report."""
    counts = usage if isinstance(usage, dict) else {}
    read, total = counts.get("prompt_tokens"), counts.get("total_tokens")
    read = read if type(read) is int else total
    if type(read) is not int:
        return Usage()
    return Usage(read, 0, total if type(total) is int else read)
