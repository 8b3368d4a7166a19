"""Deterministic embeddings: texts that share words lie close together, so that retrieval finds something."""

import math
import re
from functools import lru_cache

from dspex.providers.language_models.simulator.draws import Draws, digest

DEFAULT_DIMENSIONS = 256
_WORD = re.compile(r"\w+")


@lru_cache(maxsize=4096)
def embed(text: str, dimensions: int = DEFAULT_DIMENSIONS) -> tuple[float, ...]:
    """A unit vector of `dimensions` numbers.

    Feature hashing: each word, and each of its three-letter pieces at a third of the weight, adds or
    subtracts at one place that its digest names.
    """
    vector = [0.0] * dimensions
    for word in _WORD.findall(text.lower()) or [text]:
        _add(vector, word, 1.0)
        for start in range(len(word) - 2):
            _add(vector, f"#{word[start : start + 3]}", 1 / 3)
    length = math.sqrt(sum(number * number for number in vector))
    if length == 0.0:
        vector[0] = length = 1.0
    return tuple(number / length for number in vector)


def _add(vector: list[float], feature: str, weight: float) -> None:
    draws = Draws(digest("embedding", feature))
    vector[draws.below(len(vector))] += weight if draws.below(2) else -weight
