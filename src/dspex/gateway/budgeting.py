"""Budgets: their periods, and what one node may spend of them. Amounts are whole billionths of a dollar, so sums are

exact.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Literal

from msgspec import Struct

PER_DOLLAR = 10**9
# A node takes a fiftieth of a budget at once: few bookings, and little is held that others could spend.
SHARES = 50
TOTAL = "total"
BudgetScope = Literal["key", "program", "job"]


def nanodollars(usd: float) -> int:
    """Rounded up, beyond the noise of binary fractions."""
    return math.ceil(round(usd * PER_DOLLAR, 3))


def dollars(amount: int) -> float:
    return amount / PER_DOLLAR


class Account(Struct, frozen=True):
    """The budget of one key, program or job in one period: "2026-01-31", "2026-01" or "total"."""

    project: str
    scope: BudgetScope
    name: str
    period: str


class Holding(Struct, frozen=True):
    """What a node has spent of an account so far, and what it holds besides, reserved or not.

    `confirmed` is what of the spent it knows to be booked: that counts when others closed the holding meanwhile.
    """

    account: Account
    node: str
    spent: int
    held: int
    confirmed: int = 0


class Loan(Struct, frozen=True):
    """What was lent, and what all nodes together have spent and hold after that."""

    lent: int
    spent: int
    held: int


class Balance(Struct, frozen=True):
    """What an account has spent and set aside."""

    account: Account
    limit: int
    spent: int
    held: int
    updated_at: datetime


def period_of(per: str, now: datetime) -> str:
    """The name of the period that a time is in, in UTC."""
    if per == "total":
        return TOTAL
    day = (now if now.tzinfo is UTC else now.astimezone(UTC)).isoformat()[:10]
    return day if per == "day" else day[:7]


def periods_at(now: datetime) -> tuple[str, ...]:
    """The names of all periods that a time is in."""
    return tuple(period_of(per, now) for per in ("day", "month", TOTAL))


def next_period(per: str, now: datetime) -> datetime | None:
    """When the period ends that a time is in; None for one that never does."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match per:
        case "day":
            return midnight + timedelta(days=1)
        case "month":
            return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
        case _:
            return None


def starts_at(period: str) -> datetime | None:
    """When the period with this name began; None for the one that always was."""
    if period == TOTAL:
        return None
    day = period if len(period) == len("2026-01-31") else f"{period}-01"
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


def lendable(limit: int, taken: int, wanted: int, least: int) -> int:
    """What a ledger lends of a limit of which so much is taken: never less than `least`, unless it is nothing."""
    left = max(limit - taken, 0)
    if left >= wanted:
        return wanted
    return left if left >= least else 0


class Lease:
    """One node's part of one account, in memory. Spends nothing that it does not hold, but for calls that cost more

    than was reserved for them.
    """

    __slots__ = ("held", "reserved", "spent")

    def __init__(self) -> None:
        self.spent = 0
        self.held = 0
        self.reserved = 0

    @property
    def free(self) -> int:
        return self.held - self.reserved

    def reserve(self, amount: int) -> bool:
        if self.free < amount:
            return False
        self.reserved += amount
        return True

    def settle(self, reserved: int, cost: int) -> None:
        """The reservation ends; what the call cost beyond all that is held is spent nevertheless."""
        self.reserved -= reserved
        self.spent += cost
        self.held = max(self.held - cost, 0)

    def give_back(self, keep: int = 0) -> None:
        """Lets go of what no call has reserved, but for some to keep."""
        self.held = min(self.held, self.reserved + keep)
