"""`dspy.Embedder` in a worker: models are asked through the node's gateway, functions of the user's own as ever."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dspy
from dspy.clients.embedding import np
from dspy.utils import exceptions

from dspex.gateway.records import MOST_TEXTS
from dspex.providers.dspy_worker.conversation import CallFailed
from dspex.providers.dspy_worker.engines import CONNECTION, METRIC, STEP, conversation, inspecting
from dspex.providers.worker_protocol import worker_pb2 as wire

# What the node decides for every caller by the same rules.
_OF_THE_NODE = frozenset({*CONNECTION, "num_retries", "encoding_format"})
PLACEHOLDER_DIMENSIONS = 1536
# What a conversation is asked.
_Asked = tuple[dict[str, Any], int]


class GatewayEmbedder(dspy.clients.embedding.Embedder):  # type: ignore[misc]
    """Takes what `dspy.Embedder` takes; of options, `dimensions`. The node caches, whatever `caching` says."""

    def __call__(
        self, inputs: Any, batch_size: int | None = None, caching: bool | None = None, **kwargs: Any
    ) -> Any:
        if not isinstance(self.model, str):
            return super().__call__(inputs, batch_size, caching, **kwargs)
        requests, single = self._requests(inputs, batch_size, kwargs)
        vectors: list[Any] = []
        for one in requests:
            try:
                vectors += _placeholders(one) if inspecting() else _read(conversation().ask_from_thread(*one))
            except CallFailed as failed:
                raise _error_of(failed) from failed
        return self._postprocess(vectors, single)

    async def acall(
        self, inputs: Any, batch_size: int | None = None, caching: bool | None = None, **kwargs: Any
    ) -> Any:
        if not isinstance(self.model, str):
            return await super().acall(inputs, batch_size, caching, **kwargs)
        requests, single = self._requests(inputs, batch_size, kwargs)
        vectors: list[Any] = []
        for one in requests:
            try:
                vectors += (
                    _placeholders(one) if inspecting() else _read(await conversation().ask_from_loop(*one))
                )
            except CallFailed as failed:
                raise _error_of(failed) from failed
        return self._postprocess(vectors, single)

    def _requests(
        self, inputs: Any, batch_size: int | None, kwargs: Mapping[str, Any]
    ) -> tuple[list[_Asked], bool]:
        """What is asked, batch by batch, and whether `inputs` is a single text."""
        size = min(batch_size or self.batch_size, MOST_TEXTS)
        batches, _, given, single = self._preprocess(inputs, size, None, **kwargs)
        unknown = [name for name in given if name != "dimensions" and name not in _OF_THE_NODE]
        if unknown:
            raise ValueError(f"dspy.Embedder takes `dimensions` here, and not {', '.join(unknown)}.")
        shared = {
            "model": self.model,
            "dimensions": given.get("dimensions"),
            "step": dspy.settings.get(STEP),
            "metric": bool(dspy.settings.get(METRIC)),
        }
        return [({**shared, "texts": list(batch)}, wire.ModelCall.EMBEDDING) for batch in batches], single


def _read(answer: Mapping[str, Any]) -> list[Any]:
    return [np.frombuffer(base64.b64decode(vector), dtype="<f4") for vector in answer["vectors"]]


def _placeholders(asked: _Asked) -> list[Any]:
    """Vectors of length 1 that mean nothing: whoever looks at a module asks no model."""
    request, _ = asked
    made = []
    for text in request["texts"]:
        seed = int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:8])
        vector = np.random.default_rng(seed).standard_normal(request["dimensions"] or PLACEHOLDER_DIMENSIONS)
        made.append(vector / np.linalg.norm(vector))
    return made


def _error_of(failed: CallFailed) -> exceptions.LMError:
    """The class that DSPy's users know; those of the node have the same names."""
    told = failed.error
    kind = getattr(exceptions, told["type"], None)
    if not (isinstance(kind, type) and issubclass(kind, exceptions.LMError)):
        kind = exceptions.LMError
    return kind(told["message"], retry_after=told.get("retry_after"), status=told.get("status"))


class OneByOne:
    """In the place of DSPy's `Unbatchify`, whose thread puts queries of several executions together: here each is

    made where it is asked, on the account of its own execution.
    """

    def __init__(self, batch_fn: Callable[[list[Any]], Sequence[Any]], *_: Any, **__: Any) -> None:
        self._batch_fn = batch_fn

    def __call__(self, input_item: Any) -> Any:
        return self._batch_fn([input_item])[0]

    def close(self) -> None:
        """There is no thread to end."""


def install() -> None:
    """`dspy.Embedder` is a GatewayEmbedder from now on, also where users' code makes its own."""
    dspy.Embedder = GatewayEmbedder
    dspy.clients.Embedder = GatewayEmbedder
    dspy.retrievers.embeddings.Unbatchify = OneByOne
