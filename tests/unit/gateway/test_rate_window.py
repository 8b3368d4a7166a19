"""The sliding window: never more than the limit in any minute, and no stricter than it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.gateway.rate_window import WINDOW_S, Window

GAPS = st.floats(0, 20, allow_nan=False)
LIMITS = st.integers(1, 12)


def admitted(window: Window, now: float, limit: int, amount: int = 1) -> bool:
    window.advance(now)
    if window.wait_s(now, limit, amount) > 0:
        return False
    window.add(now, amount)
    return True


@given(limit=LIMITS, gaps=st.lists(GAPS, max_size=80), amounts=st.lists(st.integers(1, 5), min_size=80))
def test_no_minute_has_more_than_the_limit(limit: int, gaps: list[float], amounts: list[int]) -> None:
    window, now, passed = Window(), 0.0, []
    for gap, amount in zip(gaps, amounts, strict=False):
        now += gap
        if admitted(window, now, limit, min(amount, limit)):
            passed.append((now, min(amount, limit)))
    for end, _ in passed:
        assert sum(amount for at, amount in passed if end - WINDOW_S < at <= end) <= limit


@given(limit=LIMITS, gaps=st.lists(GAPS, max_size=80))
def test_what_is_refused_would_pass_a_limit_for_a_second_more_than_a_minute(
    limit: int, gaps: list[float]
) -> None:
    window, now = Window(), 0.0
    passed: list[float] = []
    for gap in gaps:
        now += gap
        if admitted(window, now, limit):
            passed.append(now)
        else:
            assert sum(now - WINDOW_S - 1 <= at for at in passed) == limit


@given(limit=LIMITS, gaps=st.lists(GAPS, max_size=40), amount=st.integers(1, 12))
def test_the_wait_is_exact(limit: int, gaps: list[float], amount: int) -> None:
    window, now = Window(), 0.0
    for gap in gaps:
        now += gap
        admitted(window, now, limit)
    amount = min(amount, limit)
    window.advance(now)
    wait_s = window.wait_s(now, limit, amount)
    if wait_s == 0:
        return
    before, after = now + wait_s - 0.001, now + wait_s + 0.001
    window.advance(before)
    assert window.wait_s(before, limit, amount) > 0
    window.advance(after)
    assert window.wait_s(after, limit, amount) == 0


@given(
    steps=st.lists(
        st.tuples(st.floats(-200, 200, allow_nan=False), st.integers(0, 50), st.integers(0, 50)), max_size=60
    )
)
def test_what_is_counted_is_the_sum_of_the_buckets_whatever_the_clock_does(
    steps: list[tuple[float, int, int]],
) -> None:
    window, now = Window(), 10_000.0
    for gap, amount, back in steps:
        now += gap
        window.advance(now)
        window.add(now, amount)
        window.give_back(int(now) - back, back)
        assert window.used == sum(window.buckets.values())
        assert min(window.buckets.values(), default=0) >= 0
        assert len(window.buckets) <= WINDOW_S + 1


def test_a_clock_that_goes_back_neither_frees_nor_blocks() -> None:
    window = Window()
    assert admitted(window, 10_000.0, 1)
    assert not admitted(window, 6_400.0, 1)
    assert not admitted(window, 6_460.0, 1)
    assert admitted(window, 6_461.0, 1)


def test_a_clock_that_leaps_forgets() -> None:
    window = Window()
    assert admitted(window, 10_000.0, 1)
    assert admitted(window, 90_000.0, 1)
    assert window.used == 1


def test_a_part_given_back_may_be_used_again() -> None:
    window = Window()
    assert admitted(window, 100.5, 10, 10)
    window.give_back(100, 7)
    assert window.used == 3
    assert admitted(window, 101.0, 10, 7)
    assert window.wait_s(101.0, 10, 3) == pytest.approx(60.0)
