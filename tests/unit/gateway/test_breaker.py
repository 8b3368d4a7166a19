"""The breaker's states: by example, and by machines that call in any order."""

import itertools

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dspex.configuration.resilience import BreakerSettings
from dspex.gateway.breaker import (
    CLOSED,
    Action,
    Breaker,
    Permit,
    admit,
    failed,
    given_up,
    operated,
    retry_after,
    state_at,
    succeeded,
)
from tests.clock import START

SETTINGS = BreakerSettings()
TRIAL_S = 40.0
_names = (f"trial {number}" for number in itertools.count())


def fail(breaker: Breaker, permit: Permit, now: float = 0.0) -> Breaker:
    return failed(breaker, permit, SETTINGS, "lm_server_error", now=now, at=START)


def succeed(breaker: Breaker, permit: Permit) -> Breaker:
    return succeeded(breaker, permit, SETTINGS, START)


def ask(breaker: Breaker, now: float) -> tuple[Breaker, Permit | None]:
    return admit(breaker, now=now, at=START, trial=next(_names), trial_s=TRIAL_S)


def let_in(breaker: Breaker, now: float) -> tuple[Breaker, Permit]:
    after, permit = ask(breaker, now)
    assert permit is not None
    return after, permit


def opened(now: float = 0.0) -> Breaker:
    breaker = CLOSED
    for _ in range(SETTINGS.failures):
        breaker, permit = let_in(breaker, now)
        breaker = fail(breaker, permit, now)
    return breaker


def test_it_opens_after_five_failures_in_a_row() -> None:
    breaker = CLOSED
    for count in range(1, 5):
        breaker = fail(breaker, Permit(0))
        assert (breaker.state, breaker.failures) == ("closed", count)
    breaker = fail(breaker, Permit(0), now=7.0)
    assert (breaker.state, breaker.until, breaker.since) == ("open", 67.0, START)
    assert breaker.last_error == "lm_server_error"


def test_a_success_between_starts_the_count_again() -> None:
    breaker = CLOSED
    for _ in range(4):
        breaker = fail(breaker, Permit(0))
    breaker = succeed(breaker, Permit(0))
    assert breaker.failures == 0
    assert fail(breaker, Permit(0)).state == "closed"


def test_nothing_passes_until_its_time_is_over() -> None:
    breaker = opened()
    for now in (0.0, 30.0, 59.999):
        assert ask(breaker, now) == (breaker, None)
        assert retry_after(breaker, now) == 60.0 - now
    assert state_at(breaker, 60.0) == "half_open"


def test_then_one_trial_at_a_time_and_three_successes_close_it() -> None:
    breaker = opened()
    for count in range(3):
        assert (breaker.successes, state_at(breaker, 60.0)) == (count, "half_open")
        breaker, permit = let_in(breaker, 60.0)
        assert permit.trial
        assert ask(breaker, 60.0)[1] is None
        assert retry_after(breaker, 60.0) == 1.0
        breaker = succeed(breaker, permit)
    assert (breaker.state, breaker.failures, retry_after(breaker, 60.0)) == ("closed", 0, 0.0)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_one_failure_of_a_trial_opens_it_for_the_full_time(before: int) -> None:
    breaker = opened()
    for _ in range(before):
        breaker, permit = let_in(breaker, 60.0)
        breaker = succeed(breaker, permit)
    breaker, permit = let_in(breaker, 70.0)
    breaker = fail(breaker, permit, now=75.0)
    assert (breaker.state, breaker.until, breaker.successes) == ("open", 135.0, 0)


def test_a_trial_that_is_given_up_makes_room_and_counts_neither_way() -> None:
    breaker, permit = let_in(opened(), 60.0)
    breaker = given_up(breaker, permit)
    assert (breaker.state, breaker.successes) == ("half_open", 0)
    let_in(breaker, 60.0)


def test_a_trial_that_never_tells_is_given_up_for_lost_and_its_late_word_is_not_heard() -> None:
    breaker, lost = let_in(opened(), 60.0)
    assert ask(breaker, 99.9)[1] is None
    breaker, _ = let_in(breaker, 100.0)
    assert fail(breaker, lost) == succeed(breaker, lost) == given_up(breaker, lost) == breaker


def test_what_was_under_way_when_it_opened_says_nothing_of_later() -> None:
    breaker = opened()
    old = Permit(CLOSED.number)
    assert fail(breaker, old) == succeed(breaker, old) == breaker
    half_open, _ = let_in(breaker, 60.0)
    assert fail(half_open, old) == succeed(half_open, old) == half_open
    closed = operated(breaker, "close", START)
    assert fail(closed, old) == closed


def test_an_operator_opens_it_until_somebody_closes_it() -> None:
    breaker = operated(CLOSED, "open", START)
    assert ask(breaker, 1e9)[1] is None
    assert retry_after(breaker, 1e9) is None
    assert operated(breaker, "close", START).state == "closed"


def test_closing_keeps_the_last_error_for_the_record_and_resetting_forgets_it() -> None:
    assert operated(opened(), "close", START).last_error == "lm_server_error"
    assert operated(opened(), "reset", START).last_error is None
    assert operated(operated(opened(), "close", START), "reset", START).last_error is None


@pytest.mark.parametrize("action", ["open", "close", "reset"])
def test_saying_it_twice_is_saying_it_once(action: Action) -> None:
    once = operated(opened(), action, START)
    assert operated(once, action, START) is once


class AnyOrder(RuleBasedStateMachine):
    """Calls begin and end in any order while time passes; a plain account of them says what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.now = CLOSED, 0.0
        self.calls: list[Permit] = []
        self.trial: Permit | None = None
        self.in_a_row = 0
        self.opened_at: float | None = None

    @rule(seconds=st.sampled_from([0.0, 1.0, 20.0, 40.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        before = self.breaker
        self.breaker, permit = ask(before, self.now)
        if permit is None:
            assert before.state != "closed"
            return
        if before.state == "open":
            assert self.opened_at is not None and self.now >= self.opened_at + SETTINGS.open_s
        if before.state == "half_open":
            assert self.trial is None or (before.until is not None and self.now >= before.until)
        self.trial = permit if permit.trial else None
        self.calls.append(permit)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), how=st.sampled_from(["succeeded", "failed", "given up"]))
    def end(self, data: st.DataObject, how: str) -> None:
        permit = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        before = self.breaker
        if how == "succeeded":
            self.breaker = succeed(before, permit)
        elif how == "failed":
            self.breaker = fail(before, permit, self.now)
        else:
            self.breaker = given_up(before, permit)
        counted = before.number == permit.number and before.state == (
            "half_open" if permit.trial else "closed"
        )
        if not counted:
            assert self.breaker == before
            return
        if permit.trial:
            self.trial = None
        if how == "failed":
            self.in_a_row += 1
            if permit.trial or self.in_a_row >= SETTINGS.failures:
                assert self.breaker.state == "open"
        elif how == "succeeded":
            self.in_a_row = 0
        if self.breaker.state == "open":
            self.opened_at, self.in_a_row = self.now, 0

    @rule(action=st.sampled_from(["close", "reset"]))
    def an_operator_acts(self, action: Action) -> None:
        after = operated(self.breaker, action, START)
        if after is not self.breaker:
            self.in_a_row, self.trial = 0, None
        self.breaker = after

    @invariant()
    def it_is_well_formed(self) -> None:
        breaker = self.breaker
        assert breaker.failures == self.in_a_row or breaker.state != "closed"
        assert breaker.successes < SETTINGS.successes
        assert breaker.state == "half_open" or breaker.successes == 0
        assert breaker.state != "closed" or breaker.until is None
        wait = retry_after(breaker, self.now)
        assert wait is not None and 0 <= wait <= SETTINGS.open_s


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = hypothesis_settings(max_examples=100, stateful_step_count=40)
