"""Vectors of texts: how they are kept, and which texts are asked together. Pure."""

import hashlib
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from msgspec import Struct

from dspex.configuration.models import EmbeddingSettings
from dspex.gateway.pipeline import Embedding
from dspex.kit.errors import Invalid

# A version, whether it was simulated, the cost (NaN: not known) and the length of the model's name, which follows.
_HEAD = struct.Struct("<B?dH")
_VERSION = 1
NUMBER_BYTES = 4


class KeptVector(Struct, frozen=True):
    """The vector of one text. `cost_usd` is its share of what was paid for it, None when that is not known."""

    vector: bytes
    model: str
    cost_usd: float | None
    simulated: bool = False

    def to_bytes(self) -> bytes:
        name = self.model.encode(errors="replace")[:1000]
        cost_usd = math.nan if self.cost_usd is None else self.cost_usd
        return _HEAD.pack(_VERSION, self.simulated, cost_usd, len(name)) + name + self.vector

    @classmethod
    def from_bytes(cls, value: bytes) -> Self | None:
        if len(value) <= _HEAD.size or value[0] != _VERSION:
            return None
        _, simulated, cost_usd, length = _HEAD.unpack_from(value)
        name, vector = value[_HEAD.size : _HEAD.size + length], value[_HEAD.size + length :]
        known = 0 <= cost_usd < math.inf
        if not (known or math.isnan(cost_usd)) or not is_vector(vector):
            return None
        return cls(vector, name.decode(errors="replace"), cost_usd if known else None, simulated)


def is_vector(packed: bytes) -> bool:
    """Whether these are float32 numbers, one at least and all of them finite."""
    if not packed or len(packed) % NUMBER_BYTES:
        return False
    # A sum of finite float32 numbers is finite in double precision, in any order of their bytes.
    return math.isfinite(sum(memoryview(packed).cast("f")))


def numbers(packed: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(packed) // NUMBER_BYTES}f", packed)


def keys_of(passage: Embedding) -> dict[str, str]:
    """A sha256 for each text, repeated ones once, over all that shapes its vector.

    Raises Invalid (code not_encodable) for text that has no UTF-8 form.
    """
    request, settings = passage.request, passage.settings
    shared = (passage.context.project, request.model, settings.model, settings.api_base, request.dimensions)
    begun = hashlib.sha256(repr(shared).encode() + b"\0")
    keys = {}
    for text in dict.fromkeys(request.texts):
        digest = begun.copy()
        try:
            digest.update(text.encode())
        except UnicodeEncodeError:
            raise Invalid(
                "A text to embed is not valid Unicode (a lone surrogate), which no model can receive; repair it.",
                code="not_encodable",
            ) from None
        keys[text] = digest.hexdigest()
    return keys


def batches(texts: Sequence[str], settings: EmbeddingSettings) -> Iterator[tuple[str, ...]]:
    """The texts in their order, cut by count and size; one that is too large goes alone."""
    batch: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if batch and (len(batch) >= settings.batch_texts or size + length > settings.batch_bytes):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield tuple(batch)


def shares(texts: Sequence[str], cost_usd: float | None) -> Mapping[str, float | None]:
    """What each text of a batch cost, by its length: providers bill their tokens together."""
    if cost_usd is None:
        return dict.fromkeys(texts)
    # One is added so that empty texts have a share.
    whole = sum(len(text) + 1 for text in texts)
    return {text: cost_usd * (len(text) + 1) / whole for text in texts}
