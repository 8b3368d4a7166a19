"""Samples and splits that anybody can do again: by the hash of a row, not by a generator of random numbers.

A row's rank is the first 8 bytes, big-endian, of sha256("{seed}:{inputs_digest}"). It depends on the seed and on the
row's inputs alone: the same seed gives the same rows on every machine and in every release, and rows with the same
inputs have the same rank, so that a split never puts one on both sides.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import fsum, isclose, isfinite

from dspex.kit.errors import Invalid, Problem

MOST_PARTS = 20


def rank(seed: int, inputs_digest: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{inputs_digest}".encode()).digest()[:8], "big")


def sampled(ranks: Sequence[int], count: int) -> list[int]:
    """Indices of the `count` lowest ranks, of equal ones the first, in ascending order; all when there are fewer."""
    lowest = sorted(range(len(ranks)), key=lambda index: (ranks[index], index))[:count]
    return sorted(lowest)


def check_ratios(ratios: Mapping[str, float]) -> None:
    """Raises Invalid (code bad_ratios) unless there are two parts or more, each positive, and they add up to 1."""
    good = all(isfinite(one) and one > 0 for one in ratios.values())
    if (
        not 2 <= len(ratios) <= MOST_PARTS
        or not good
        or not isclose(fsum(ratios.values()), 1.0, abs_tol=1e-6)
    ):
        message = f"give 2 to {MOST_PARTS} parts a positive share each, that add up to 1"
        raise Invalid(
            f"These shares make no split; {message}.",
            code="bad_ratios",
            problems=[Problem("/ratios", "bad_ratios", message)],
        )


class Parts:
    """Which part a rank belongs to: the first part has the lowest ranks, and so on.

    Sizes are the shares of the rows, rounded, except where rows with the same inputs lie at a border: all of them go
    to the part of the first.
    """

    def __init__(self, ranks: Sequence[int], shares: Sequence[float]) -> None:
        ordered = sorted(ranks)
        ends, taken = [], 0.0
        for share in shares[:-1]:
            taken += share
            ends.append(round(taken * len(ordered)))
        # The highest rank of each part but the last; below all of them when a part gets nothing.
        self._highest = [ordered[end - 1] if end else -1 for end in ends]

    def part_of(self, rank: int) -> int:
        return bisect_left(self._highest, rank)
