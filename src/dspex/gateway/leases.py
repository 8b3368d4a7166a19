"""Budgets on one node: reservations in memory, from blocks that the ledger lends."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import structlog
from msgspec import Struct, field

from dspex.configuration.spending import Budget
from dspex.gateway.budgeting import (
    SHARES,
    Account,
    BudgetScope,
    Holding,
    Lease,
    Loan,
    dollars,
    nanodollars,
    next_period,
    period_of,
    periods_at,
)
from dspex.gateway.ports import BudgetLedger
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Exhausted
from dspex.kit.wording import usd_text

log = structlog.get_logger(__name__)
TEND_EVERY_S = 2.0
IDLE_S = 5.0
# How long a node takes the ledger's word that nothing is left.
ASK_AGAIN_S = 1.0


class Owner(Struct, frozen=True):
    """Whose budget it is."""

    project: str
    scope: BudgetScope
    name: str
    budget: Budget


class _Held(Struct):
    """`booked` is what the ledger knows as spent and held; None while that is uncertain. `confirmed` is what it has

    surely booked as spent, `waiting` what those want who wait for the lock.
    """

    account: Account
    limit: int = 0
    lease: Lease = field(default_factory=Lease)
    booked: tuple[int, int] | None = (0, 0)
    confirmed: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    used_at: float = 0.0
    refused: "_Refused | None" = None


class _Refused(Struct, frozen=True):
    """A block the ledger had no room for: whoever asks for as much again is refused without asking it."""

    amount: int
    limit: int
    until: float
    loan: Loan


class Reserved(Struct, frozen=True):
    """The same amount of each of a call's budgets."""

    amount: int
    held: tuple[_Held, ...]


class BudgetLeases:
    """One for each process. Waits for the ledger only when a block is used up; books what was spent within seconds."""

    def __init__(self, ledger: BudgetLedger, node: str, clock: Clock) -> None:
        self._ledger = ledger
        self._node = node
        self._clock = clock
        self._accounts: dict[Account, _Held] = {}
        self._tending: asyncio.Task[None] | None = None
        self._failing = False

    async def reserve(self, owners: Sequence[Owner], amount: int) -> Reserved:
        """Takes the amount from every budget, or from none.

        Raises Exhausted (code budget_exhausted), and Unavailable when the ledger is away and a block used up.
        """
        now = self._clock.now()
        done: list[_Held] = []
        try:
            for owner in owners:
                held = self._held(owner, now)
                if not held.lease.reserve(amount):
                    await self._borrow(held, owner, amount)
                done.append(held)
        except BaseException:
            self.settle(Reserved(amount, tuple(done)), 0)
            raise
        return Reserved(amount, tuple(done))

    def settle(self, reserved: Reserved, cost: int) -> None:
        """What the call cost, however it ended. Does not wait."""
        for held in reserved.held:
            held.lease.settle(reserved.amount, cost)
            held.used_at = self._clock.monotonic()

    async def tend(self) -> None:
        """Books what was spent, gives back what nobody used for a while, closes the accounts of past periods."""
        running = periods_at(self._clock.now())
        for held in list(self._accounts.values()):
            async with held.lock:
                idle = self._clock.monotonic() - held.used_at > IDLE_S and not held.waiting
                if idle and held.account.period not in running and not held.lease.reserved:
                    await self._close(held)
                    continue
                # More than a block comes from a rush that is over; others may need it.
                held.lease.give_back(keep=0 if idle else held.limit // SHARES)
                if held.booked != (held.lease.spent, held.lease.held):
                    await self._book(held)

    async def aclose(self) -> None:
        """Gives back what is held, and books what was spent. No call may be under way."""
        tending, self._tending = self._tending, None
        if tending is not None:
            tending.cancel()
            await asyncio.wait([tending])
        try:
            for held in list(self._accounts.values()):
                await self._close(held)
        except DspexError as error:
            # What this node held stays taken until others see that it is gone.
            log.warning("budgets_not_booked", reason=error.message)

    def _held(self, owner: Owner, now: datetime) -> _Held:
        account = Account(owner.project, owner.scope, owner.name, period_of(owner.budget.per, now))
        held = self._accounts.get(account)
        if held is None:
            held = self._accounts[account] = _Held(account)
            if self._tending is None:
                self._tending = asyncio.create_task(self._keep_tending())
        # Budgets may be changed while a node runs.
        held.limit = nanodollars(owner.budget.usd)
        held.used_at = self._clock.monotonic()
        return held

    async def _borrow(self, held: _Held, owner: Owner, amount: int) -> None:
        held.waiting += amount
        try:
            async with held.lock:
                # Others who waited may have brought enough for this call, or learned that there is nothing.
                if held.lease.reserve(amount):
                    return
                refused = held.refused
                if refused is not None and self._still_true(refused, held, amount):
                    raise self._exhausted(owner, held.limit, refused.loan, amount)
                held.refused = None
                missing = amount - held.lease.free
                block = max(held.limit // SHARES, held.waiting - held.lease.free)
                loan = await self._book(held, wanted=max(block, missing), least=missing)
                if not held.lease.reserve(amount):
                    until = self._clock.monotonic() + ASK_AGAIN_S
                    held.refused = _Refused(amount, held.limit, until, loan)
                    raise self._exhausted(owner, held.limit, loan, amount)
        finally:
            held.waiting -= amount

    def _still_true(self, refused: _Refused, held: _Held, amount: int) -> bool:
        return (
            amount >= refused.amount
            and held.limit == refused.limit
            and self._clock.monotonic() < refused.until
        )

    async def _book(self, held: _Held, *, wanted: int = 0, least: int = 0) -> Loan:
        """With the lock. What calls spend meanwhile is booked the next time."""
        lease = held.lease
        holding = Holding(held.account, self._node, lease.spent, lease.held, held.confirmed)
        held.booked = None
        loan = await self._ledger.book(
            holding, at=self._clock.now(), limit=held.limit, wanted=wanted, least=least
        )
        lease.held += loan.lent
        held.booked = (holding.spent, holding.held + loan.lent)
        held.confirmed = holding.spent
        return loan

    async def _close(self, held: _Held) -> None:
        holding = Holding(held.account, self._node, held.lease.spent, 0)
        await self._ledger.close(holding, at=self._clock.now())
        del self._accounts[held.account]

    async def _keep_tending(self) -> None:
        while True:
            await asyncio.sleep(TEND_EVERY_S)
            try:
                await self.tend()
            except DspexError as error:
                # Calls say so themselves once they need more; once is enough for the log.
                if not self._failing:
                    log.warning("budgets_not_booked", reason=error.message)
                self._failing = True
            except Exception:
                # A defect of ours must not keep what others could spend.
                log.exception("budgets_not_booked")
            else:
                self._failing = False

    def _exhausted(self, owner: Owner, limit: int, loan: Loan, amount: int) -> Exhausted:
        budget, now = owner.budget, self._clock.now()
        ends = next_period(budget.per, now)
        what = f"The budget of {owner.scope} {owner.name!r}, {usd_text(budget.usd)} " + (
            "in all" if ends is None else f"a {budget.per}"
        )
        spent = f"{usd_text(dollars(loan.spent))} is spent"
        if loan.spent + amount <= limit:
            # Most of what calls reserve comes back when they end.
            return Exhausted(
                f"{what}, is taken for now: {spent} and {usd_text(dollars(loan.held))} reserved, and this "
                f"call may cost {usd_text(dollars(amount))}. Try again in a moment, lower "
                "max_tokens, or raise the budget.",
                code="budget_exhausted",
                retry_after=ASK_AGAIN_S,
            )
        begins = "" if ends is None else f"It begins anew at {ends:%Y-%m-%dT%H:%MZ}; "
        return Exhausted(
            f"{what}, is used up: {spent}, and this call may cost {usd_text(dollars(amount))}. {begins}"
            "raise the budget to go on before.",
            code="budget_exhausted",
            retry_after=None if ends is None else (ends - now).total_seconds(),
        )
