"""When a call is tried again, and when it is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.configuration.resilience import RetrySettings
from dspex.gateway.backoff import RESERVE, SHARE, SNOOZE_S, RetryBudget, wait_s
from dspex.gateway.errors import (
    BreakerOpen,
    LaneFull,
    LMAuthError,
    LMError,
    LMInvalidRequestError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMTransportError,
)
from dspex.gateway.records import Lane

SETTINGS = RetrySettings()
SERVER = LMServerError("It failed.")


def wait(
    error: LMError = SERVER,
    failed: int = 1,
    lane: Lane = "interactive",
    left_s: float | None = None,
    draw: float = 1.0,
    settings: RetrySettings = SETTINGS,
) -> float | None:
    return wait_s(error, failed, settings, lane, left_s=left_s, draw=draw)


def test_waits_double_up_to_the_longest_and_are_drawn_from_0() -> None:
    many = RetrySettings(attempts=20)
    assert [wait(failed=failed, settings=many) for failed in range(1, 8)] == [0.5, 1, 2, 4, 8, 10, 10]
    assert wait(failed=2, draw=0.25) == 0.25
    assert wait(draw=0.0) == 0.0


@pytest.mark.parametrize("error", [LMTransportError("x"), LMTimeoutError("x"), LMRateLimitError("x"), SERVER])
def test_what_may_pass_is_tried_again(error: LMError) -> None:
    assert wait(error) is not None
    assert wait(error, lane="evaluation") is not None


@pytest.mark.parametrize(
    "error", [LMAuthError("x"), LMInvalidRequestError("x"), BreakerOpen("x", retry_after=1)]
)
def test_what_will_not_pass_is_not(error: LMError) -> None:
    assert wait(error) is None
    assert wait(error, lane="optimization") is None


def test_attempts_are_counted() -> None:
    assert wait(failed=2) is not None
    assert wait(failed=3) is None
    assert wait(settings=RetrySettings(attempts=1)) is None


def test_the_providers_own_wait_is_kept_and_spread() -> None:
    assert wait(LMRateLimitError("x", retry_after=2), draw=0.0) == 2
    assert wait(LMRateLimitError("x", retry_after=2), draw=1.0) == 2.5
    assert wait(LMServerError("x", retry_after=10), draw=0.0) == 10


def test_a_wait_that_is_too_long_is_left_to_the_caller() -> None:
    assert wait(LMRateLimitError("x", retry_after=10.1)) is None


@pytest.mark.parametrize("lane", ["interactive", "evaluation"])
def test_nothing_is_begun_that_can_not_end(lane: Lane) -> None:
    full = wait(lane=lane)
    assert full is not None
    assert wait(lane=lane, left_s=full) is None
    assert wait(lane=lane, left_s=full + 0.1) == full
    assert wait(lane=lane, left_s=-1.0) is None


def test_in_the_background_there_are_five_attempts_and_longer_waits() -> None:
    waits = [wait(failed=failed, lane="optimization", draw=0.1) for failed in range(1, 6)]
    assert waits == [2, 4, 8, 16, None]


def test_in_the_background_a_rate_limit_snoozes() -> None:
    assert wait(LMRateLimitError("x"), lane="evaluation") == SNOOZE_S
    assert wait(LMRateLimitError("x", retry_after=7), lane="evaluation") == 7
    assert wait(LMRateLimitError("x", retry_after=3600), lane="evaluation") == SNOOZE_S


def test_a_full_lane_is_waited_for_in_the_background_only() -> None:
    assert wait(LaneFull("x", retry_after=1)) is None
    assert wait(LaneFull("x", retry_after=1), lane="evaluation") == 2


def retries_granted(budget: RetryBudget, now: float) -> tuple[RetryBudget, int]:
    granted = 0
    while (after := budget.retried(now)) is not None:
        budget, granted = after, granted + 1
    return budget, granted


def test_without_many_calls_there_is_a_small_reserve() -> None:
    budget, granted = retries_granted(RetryBudget().called(0.0), 0.0)
    assert granted == RESERVE
    assert budget.retried(60.0) is not None


def test_a_model_that_is_down_gets_a_fifth_more_traffic_not_thrice() -> None:
    budget, retries = RetryBudget(), 0
    for second in range(300):
        for _ in range(100):
            budget = budget.called(float(second))
            for _ in range(2):
                if (after := budget.retried(float(second))) is not None:
                    budget, retries = after, retries + 1
    assert retries <= 1.05 * SHARE * 300 * 100 + RESERVE


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.booleans()),
        max_size=200,
    )
)
def test_retries_never_pass_the_share_of_recent_calls_and_the_reserve(
    steps: list[tuple[float, bool]],
) -> None:
    budget, now = RetryBudget(), 0.0
    for seconds, is_call in steps:
        now += seconds
        budget = budget.called(now) if is_call else budget.retried(now) or budget
        assert budget.retries <= SHARE * budget.calls + RESERVE + 1e-9
