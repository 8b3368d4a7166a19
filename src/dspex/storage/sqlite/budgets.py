"""Budgets: what a node looks for again and again, and mostly does not find."""

from datetime import datetime

from dspex.storage.later import Deferred, SqlStoresLater
from dspex.storage.sqlite.statements import SqliteStatements

_DEAD_HOLDING = """
SELECT 1 FROM budget_holdings
WHERE updated_at < ? AND node NOT IN (SELECT node FROM nodes WHERE last_beat >= ?) LIMIT 1
"""
_PAST = "SELECT 1 FROM budgets WHERE period != 'total' AND updated_at < ? LIMIT 1"


class SqliteBudgets(Deferred):
    """`gateway.ports.BudgetLedger` on a SQLite file; whoever spends or finds something lets SQLAlchemy do it."""

    def __init__(self, statements: SqliteStatements, later: SqlStoresLater) -> None:
        super().__init__(later, "budgets")
        self._statements = statements

    async def reap(self, *, beat_before: datetime, booked_before: datetime) -> int:
        if not await self._statements.read(_DEAD_HOLDING, booked_before, beat_before):
            return 0
        stores = await self._later.get()
        return await stores.budgets.reap(beat_before=beat_before, booked_before=booked_before)

    async def forget(self, *, booked_before: datetime) -> int:
        if not await self._statements.read(_PAST, booked_before):
            return 0
        return await (await self._later.get()).budgets.forget(booked_before=booked_before)
