"""Statistics against known values, and against each other."""

import math
import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.evaluations import statistics
from dspex.evaluations.statistics import interval, quantile, significance, t_quantile, t_tail


@pytest.mark.parametrize(
    ("freedom", "value"),
    # As tables of Student's t have them, two-sided, 0.05.
    [
        (1, 12.7062),
        (2, 4.30265),
        (5, 2.57058),
        (10, 2.22814),
        (30, 2.04227),
        (100, 1.98397),
        (10_000, 1.96020),
    ],
)
def test_students_t(freedom: int, value: float) -> None:
    assert t_quantile(freedom) == pytest.approx(value, rel=1e-5)
    assert t_tail(value, freedom) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # The roots of (p - x/n)^2 = z^2 p (1 - p) / n.
    [(15, 20, 0.5313, 0.8881), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 2, 0.0945, 0.9055)],
)
def test_wilsons_interval(right: int, n: int, low: float, high: float) -> None:
    found = interval([1.0] * right + [0.0] * (n - right))
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4), found.method) == (low, high, "wilson")


def test_students_interval() -> None:
    # 0.44 +- 2.776445 * sqrt(0.267 / 4 / 5)
    found = interval([0.1, 0.4, 0.35, 0.8, 0.55])
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4), found.method) == (0.1192, 0.7608, "t")
    clipped = interval([0.5, 0.5, 0.0, 0.0])
    assert clipped is not None and clipped.low == 0.0
    beyond = interval([-5.0, 12.0])
    assert beyond is not None and beyond.low < -5.0
    assert interval([0.5]) is None and interval([]) is None


@given(st.lists(st.sampled_from([0.0, 1.0, 0.25, 0.5]), min_size=2, max_size=60))
def test_an_interval_holds_the_mean_and_stays_where_scores_are(scores: list[float]) -> None:
    found = interval(scores)
    assert found is not None
    assert 0.0 <= found.low <= statistics.mean(scores) + 1e-12
    assert statistics.mean(scores) - 1e-12 <= found.high <= 1.0


def test_quantiles_and_deviation() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    assert [quantile(values, share) for share in (0.0, 0.5, 0.95, 1.0)] == [
        1.0,
        2.5,
        pytest.approx(3.85),
        4.0,
    ]
    assert statistics.deviation(values) == pytest.approx(1.290994)
    assert statistics.deviation([7.0]) == 0.0


def test_differences_of_one_size_are_mcnemars_exact_test() -> None:
    # 2 * (45 + 10 + 1) / 1024, and 2 / 1024.
    assert significance([1.0] * 8 + [-1.0] * 2 + [0.0] * 50).p_value == pytest.approx(0.109375)
    assert significance([1.0] * 10).p_value == pytest.approx(0.001953125)
    assert significance([-1.0, 1.0]).p_value == 1.0
    assert significance([0.0, 0.0]).p_value == significance([]).p_value == 1.0
    many = significance([1.0] * 600 + [-1.0] * 500).p_value
    whole = 2 * sum(math.comb(1100, k) for k in range(600, 1101)) / (1 << 1100)
    assert many == pytest.approx(whole, rel=1e-2)


def brute(differences: list[float]) -> float:
    total = abs(sum(differences))
    flips = [
        abs(sum(sign * one for sign, one in zip(signs, differences, strict=True))) >= total - 1e-9
        for signs in product((1, -1), repeat=len(differences))
    ]
    return sum(flips) / len(flips)


@settings(max_examples=50)
@given(st.lists(st.sampled_from([-0.5, -0.25, 0.0, 0.3, 1.0]), min_size=1, max_size=9))
def test_few_differences_are_flipped_in_every_way(differences: list[float]) -> None:
    found = significance(differences)
    assert found.method == "exact"
    assert found.p_value == pytest.approx(brute(differences))


def test_more_are_sampled_alike_each_time_and_many_taken_for_normal() -> None:
    draw = random.Random(1)
    some = [draw.uniform(-1.0, 1.2) for _ in range(100)]
    found = significance(some)
    assert found.method == "sampled"
    assert significance(some) == found
    spread = math.sqrt(sum(one * one for one in some))
    assert found.p_value == pytest.approx(math.erfc(abs(sum(some)) / spread / math.sqrt(2)), abs=0.02)
    assert significance(some * 5).method == "normal"
    assert significance([abs(one) for one in some]).p_value == pytest.approx(1 / 10_001)
