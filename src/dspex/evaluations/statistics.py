"""Means, intervals and differences. Pure Python: the sources of the formulas are named."""

import math
import random
from collections.abc import Sequence
from itertools import product
from statistics import NormalDist
from typing import Literal

from msgspec import Struct

LEVEL = 0.95
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
# Differences that are tried in every way, those that are sampled, and how often.
EXACT, SAMPLED, FLIPS = 14, 500, 10_000
SEED = 0
IntervalMethod = Literal["wilson", "t"]
TestMethod = Literal["exact", "sampled", "normal"]


class Interval(Struct, frozen=True):
    low: float
    high: float
    method: IntervalMethod


class Significance(Struct, frozen=True):
    """`p_value` of the sign-flip permutation test, two-sided; `method` is how it was counted."""

    p_value: float
    method: TestMethod


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Of the sample (n - 1); 0 for a single value."""
    if len(values) < 2:
        return 0.0
    middle = mean(values)
    return math.sqrt(math.fsum((one - middle) ** 2 for one in values) / (len(values) - 1))


def interval(scores: Sequence[float]) -> Interval | None:
    """95% for the mean: Wilson's for scores that are all 0 or 1, else Student's t. None for fewer than two.

    Within 0..1 where all scores are.
    """
    n = len(scores)
    if n < 2:
        return None
    middle = mean(scores)
    if all(one in (0.0, 1.0) for one in scores):
        return _wilson(middle, n)
    half = t_quantile(n - 1) * deviation(scores) / math.sqrt(n)
    low, high = middle - half, middle + half
    if all(0.0 <= one <= 1.0 for one in scores):
        low, high = max(low, 0.0), min(high, 1.0)
    return Interval(low, high, "t")


def _wilson(share: float, n: int) -> Interval:
    """Wilson 1927, "Probable inference, the law of succession, and statistical inference"."""
    spread = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n))
    middle, scale = share + _Z**2 / (2 * n), 1 + _Z**2 / n
    low = 0.0 if share == 0.0 else (middle - spread) / scale
    return Interval(low, 1.0 if share == 1.0 else (middle + spread) / scale, "wilson")


def t_quantile(freedom: int) -> float:
    """The value that Student's t of so many degrees of freedom stays within with 95%, either way."""
    low, high = 0.0, 1000.0
    for _ in range(100):
        middle = (low + high) / 2
        if t_tail(middle, freedom) > 1 - LEVEL:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def t_tail(t: float, freedom: int) -> float:
    """How likely |T| >= t is: the regularised incomplete beta function of freedom / (freedom + t * t)."""
    return _beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def _beta(x: float, a: float, b: float) -> float:
    """By its continued fraction (DLMF 8.17.22), evaluated by Lentz's method."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta(1.0 - x, b, a)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    tiny, c = 1e-300, 1.0
    d = 1.0 / _not_zero(1.0 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 10_000):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _not_zero(1.0 + factor * d, tiny)
            c = _not_zero(1.0 + factor / c, tiny)
            value *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return front * value / a


def _not_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of values in ascending order, between neighbours in proportion (Hyndman and Fan's type 7)."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def significance(differences: Sequence[float]) -> Significance:
    """Of paired differences, were their signs mere chance: how likely a sum this far from 0 would be.

    Fisher's sign-flip permutation test (The Design of Experiments, 21). All flips are counted where all differences
    have one size, which is McNemar's exact test for scores of 0 and 1, and where there are few; else flips are sampled
    with a fixed seed; from 500 on the sum is taken for normal. Differences of 0 say nothing.
    """
    sizes = [abs(one) for one in differences if one]
    total = abs(math.fsum(differences))
    n = len(sizes)
    if n == 0:
        return Significance(1.0, "exact")
    slack = 1e-9 * math.fsum(sizes)
    if max(sizes) - min(sizes) <= 1e-12:
        return Significance(_binomial(n, round((n + total / sizes[0]) / 2)), "exact")
    if n <= EXACT:
        beyond = sum(
            abs(math.fsum(sign * one for sign, one in zip(signs, sizes, strict=True))) >= total - slack
            for signs in product((1, -1), repeat=n)
        )
        return Significance(beyond / 2**n, "exact")
    if n >= SAMPLED:
        spread = math.sqrt(math.fsum(one * one for one in sizes))
        return Significance(math.erfc(total / spread / math.sqrt(2)), "normal")
    draw = random.Random(SEED)  # noqa: S311
    whole, beyond = math.fsum(sizes), 0
    for _ in range(FLIPS):
        bits = draw.getrandbits(n)
        minus = sum(one for index, one in enumerate(sizes) if bits >> index & 1)
        beyond += abs(whole - 2 * minus) >= total - slack
    # The differences as they are count as one flip: a p-value of 0 would say too much.
    return Significance((beyond + 1) / (FLIPS + 1), "sampled")


def _binomial(n: int, most: int) -> float:
    """Two-sided: of n fair coins, at least `most` on one side."""
    if 2 * most <= n:
        return 1.0
    if n > 1000:
        # The sums would be exact and slow; with the correction for continuity no digit that matters is lost.
        return min(math.erfc((2 * most - n - 1) / math.sqrt(2 * n)), 1.0)
    ways = sum(math.comb(n, k) for k in range(most, n + 1))
    return min(2 * ways / (1 << n), 1.0)
