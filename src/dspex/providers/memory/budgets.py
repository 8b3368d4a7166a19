"""Budgets kept in memory, for tests and throw-away servers."""

from collections.abc import Collection, Sequence
from datetime import datetime

from msgspec.structs import replace

from dspex.gateway.budgeting import TOTAL, Account, Balance, Holding, Loan, lendable, nanodollars, starts_at
from dspex.providers.memory.executions import MemoryExecutions, MemoryNodes


class MemoryBudgets:
    """A `gateway.ports.BudgetLedger`. Nothing awaits inside a booking, so each is atomic."""

    def __init__(self, nodes: MemoryNodes, executions: MemoryExecutions) -> None:
        self._nodes = nodes
        self._executions = executions
        self._balances: dict[Account, Balance] = {}
        self._holdings: dict[tuple[Account, str], tuple[Holding, datetime]] = {}

    async def book(
        self, holding: Holding, *, at: datetime, limit: int, wanted: int = 0, least: int = 0
    ) -> Loan:
        account = holding.account
        total = self._balances.get(account) or Balance(account, limit, 0, 0, at)
        closed = Holding(account, "", holding.confirmed, 0)
        before, _ = self._holdings.get((account, holding.node), (closed, at))
        spent = total.spent - before.spent + holding.spent
        held = total.held - before.held + holding.held
        lent = lendable(limit, spent + held, wanted, least)
        self._balances[account] = Balance(account, limit, spent, held + lent, at)
        self._holdings[account, holding.node] = replace(holding, held=holding.held + lent), at
        return Loan(lent, spent, held + lent)

    async def close(self, holding: Holding, *, at: datetime) -> None:
        self._close(holding.account, holding.node, holding.spent, at)

    async def balances(self, project: str, periods: Collection[str]) -> Sequence[Balance]:
        found = [
            one
            for one in self._balances.values()
            if one.account.project == project and one.account.period in periods
        ]
        return sorted(found, key=lambda one: (one.account.scope, one.account.name, one.account.period))

    async def reap(self, *, beat_before: datetime, booked_before: datetime) -> int:
        dead = [
            holding
            for (_, node), (holding, at) in self._holdings.items()
            if at < booked_before and not self._alive(node, beat_before)
        ]
        for one in dead:
            spent = min(max(one.spent, self._recorded(one)), one.spent + one.held)
            _, at = self._holdings[one.account, one.node]
            self._close(one.account, one.node, spent, at)
        return len(dead)

    async def forget(self, *, booked_before: datetime) -> int:
        held = {account for account, _ in self._holdings}
        old = [
            account
            for account, balance in self._balances.items()
            if account.period != TOTAL and balance.updated_at < booked_before and account not in held
        ]
        for account in old:
            del self._balances[account]
        return len(old)

    def _alive(self, node: str, beat_before: datetime) -> bool:
        beat = self._nodes.beats.get(node)
        return beat is not None and beat >= beat_before

    def _close(self, account: Account, node: str, spent: int, at: datetime) -> None:
        mine, _ = self._holdings.pop((account, node), (None, at))
        if mine is not None:
            total = self._balances[account]
            self._balances[account] = replace(
                total,
                spent=total.spent - mine.spent + max(spent, mine.spent),
                held=total.held - mine.held,
                updated_at=at,
            )

    def _recorded(self, holding: Holding) -> int:
        account = holding.account
        if account.scope == "job":
            return holding.spent + holding.held
        began = starts_at(account.period)
        named = [
            one
            for one in self._executions.of_node(holding.node)
            if (began is None or one.created_at >= began)
            # A key's are its own in whatever project it acted.
            and (
                account.name == one.key_id
                if account.scope == "key"
                else (account.project, account.name) == (one.project, one.program)
            )
        ]
        return nanodollars(sum(one.cost_usd or 0.0 for one in named))
