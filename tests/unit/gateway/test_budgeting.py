"""Periods, and what one node may spend of a budget."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.gateway.budgeting import (
    Lease,
    dollars,
    lendable,
    nanodollars,
    next_period,
    period_of,
    periods_at,
    starts_at,
)

EVE = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
AMOUNTS = st.integers(0, 100)


def test_periods_are_named_in_utc() -> None:
    assert periods_at(EVE) == ("2026-12-31", "2026-12", "total")
    assert period_of("day", EVE.astimezone(timezone(timedelta(hours=9)))) == "2026-12-31"
    assert period_of("month", EVE + timedelta(seconds=1)) == "2027-01"


@pytest.mark.parametrize("per", ["day", "month"])
@given(at=st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_period_ends_where_the_next_begins(per: str, at: datetime) -> None:
    ends = next_period(per, at)
    assert ends is not None
    assert ends > at
    assert period_of(per, ends) != period_of(per, at)
    assert period_of(per, ends - timedelta(microseconds=1)) == period_of(per, at)
    assert starts_at(period_of(per, ends)) == ends


def test_a_total_budget_has_neither_start_nor_end() -> None:
    assert (next_period("total", EVE), starts_at("total")) == (None, None)


def test_money_is_exact_and_rounded_up() -> None:
    assert nanodollars(0.1) + nanodollars(0.2) == nanodollars(0.3)
    assert nanodollars(1e-12) == 1
    assert nanodollars(0.0) == 0
    assert dollars(nanodollars(12.345678901)) == 12.345678901


@given(limit=AMOUNTS, taken=st.integers(0, 200), least=AMOUNTS, more=AMOUNTS)
def test_a_loan_never_passes_the_limit_nor_is_too_small(
    limit: int, taken: int, least: int, more: int
) -> None:
    loan = lendable(limit, taken, least + more, least)
    assert 0 <= loan <= least + more
    assert loan == 0 or taken + loan <= limit
    assert loan == 0 or loan >= least
    if taken + least + more <= limit:
        assert loan == least + more


@given(
    steps=st.lists(st.tuples(st.sampled_from(["lend", "reserve", "settle", "give back"]), AMOUNTS, AMOUNTS))
)
def test_a_lease_spends_only_what_it_was_lent_but_for_calls_that_cost_more_than_reserved(
    steps: list[tuple[str, int, int]],
) -> None:
    lease, lent, returned, beyond = Lease(), 0, 0, 0
    reservations: list[int] = []
    for action, amount, cost in steps:
        if action == "lend":
            lease.held += amount
            lent += amount
        elif action == "reserve" and lease.reserve(amount):
            reservations.append(amount)
        elif action == "settle" and reservations:
            reserved = reservations.pop()
            lease.settle(reserved, cost)
            beyond += max(cost - reserved, 0)
        elif action == "give back":
            before = lease.held
            lease.give_back()
            returned += before - lease.held
        assert lease.reserved == sum(reservations)
        assert lease.held >= 0
        assert lease.spent <= lent - returned + beyond
    while reservations:
        lease.settle(reservations.pop(), 0)
    lease.give_back()
    assert (lease.reserved, lease.held) == (0, 0)
