"""What budgets have been spent, and what nodes hold of them."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from dspex.gateway.budgeting import TOTAL, Account, Balance, Holding, Loan, lendable, nanodollars, starts_at
from dspex.storage.sessions import ReadSession, Sessions, WriteSession
from dspex.storage.tables import budget_holdings, budgets, executions, nodes

_KEY = ("project", "scope", "name", "period")
# As much as the columns can hold of a cost that nobody would pay.
_MOST = 2**62


class StoredBudgets:
    """`gateway.ports.BudgetLedger` over the tables."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def book(
        self, holding: Holding, *, at: datetime, limit: int, wanted: int = 0, least: int = 0
    ) -> Loan:
        async with self._sessions.writing() as session:
            key = _key(holding.account)
            new = self._sessions.dialect.insert(budgets).values(
                **key, limit=limit, spent=0, held=0, updated_at=at
            )
            await session.execute(new.on_conflict_do_nothing())
            total = (await _locked(session, budgets, key)).one()
            mine = (await _locked(session, budget_holdings, {**key, "node": holding.node})).one_or_none()
            # Gone: others took this node for dead, and what it had booked stays booked.
            before = (holding.confirmed, 0) if mine is None else (mine.spent, mine.held)
            spent = total.spent - before[0] + holding.spent
            held = total.held - before[1] + holding.held
            lent = lendable(limit, spent + held, wanted, least)
            await _set(session, budgets, key, limit=limit, spent=spent, held=held + lent, updated_at=at)
            values = {"spent": holding.spent, "held": holding.held + lent, "updated_at": at}
            upsert = self._sessions.dialect.insert(budget_holdings).values(**key, node=holding.node, **values)
            await session.execute(upsert.on_conflict_do_update(index_elements=[*_KEY, "node"], set_=values))
        return Loan(lent, spent, held + lent)

    async def close(self, holding: Holding, *, at: datetime) -> None:
        async with self._sessions.writing() as session:
            await _close(session, _key(holding.account), holding.node, holding.spent, at)

    async def balances(self, project: str, periods: Collection[str]) -> Sequence[Balance]:
        query = (
            sa.select(budgets)
            .where(budgets.c.project == project, budgets.c.period.in_(periods))
            .order_by(budgets.c.scope, budgets.c.name, budgets.c.period)
        )
        async with self._sessions.reading() as session:
            rows = (await session.execute(query)).mappings().all()
        return [
            Balance(
                Account(**{name: row[name] for name in _KEY}),
                row["limit"],
                row["spent"],
                row["held"],
                row["updated_at"],
            )
            for row in rows
        ]

    async def reap(self, *, beat_before: datetime, booked_before: datetime) -> int:
        alive = sa.select(nodes.c.node).where(nodes.c.last_beat >= beat_before)
        dead = sa.and_(budget_holdings.c.updated_at < booked_before, budget_holdings.c.node.not_in(alive))
        async with self._sessions.reading() as session:
            found = (await session.execute(sa.select(budget_holdings).where(dead))).all()
            costs = [await _recorded(session, row) for row in found]
        for row, cost in zip(found, costs, strict=True):
            key = {name: getattr(row, name) for name in _KEY}
            spent = min(max(row.spent, cost), row.spent + row.held)
            async with self._sessions.writing() as session:
                await _close(session, key, row.node, spent, row.updated_at)
        return len(found)

    async def forget(self, *, booked_before: datetime) -> int:
        held = sa.exists().where(*(budget_holdings.c[name] == budgets.c[name] for name in _KEY))
        old = sa.delete(budgets).where(budgets.c.period != TOTAL, budgets.c.updated_at < booked_before, ~held)
        async with self._sessions.writing() as session:
            return (await session.execute(old)).rowcount


def _key(account: Account) -> dict[str, str]:
    return {name: getattr(account, name) for name in _KEY}


async def _locked(session: WriteSession, table: sa.Table, key: dict[str, str]) -> "sa.Result[Any]":
    query = sa.select(table.c.spent, table.c.held).where(*_place(table, key)).with_for_update()
    found: sa.Result[Any] = await session.execute(query)
    return found


async def _set(session: WriteSession, table: sa.Table, key: dict[str, str], **values: Any) -> None:
    await session.execute(sa.update(table).where(*_place(table, key)).values(**values))


def _place(table: sa.Table, key: dict[str, str]) -> "list[sa.ColumnElement[bool]]":
    return [table.c[name] == value for name, value in key.items()]


async def _close(session: WriteSession, key: dict[str, str], node: str, spent: int, at: datetime) -> None:
    """Nothing when it is closed already: by this node, or by another one that took it for dead."""
    total = (await _locked(session, budgets, key)).one_or_none()
    of_node = {**key, "node": node}
    mine = (await _locked(session, budget_holdings, of_node)).one_or_none()
    if mine is None or total is None:
        return
    await _set(
        session,
        budgets,
        key,
        spent=total.spent - mine.spent + max(spent, mine.spent),
        held=total.held - mine.held,
        updated_at=at,
    )
    await session.execute(sa.delete(budget_holdings).where(*_place(budget_holdings, of_node)))


async def _recorded(session: ReadSession, row: Any) -> int:
    """What the node's recorded executions cost that were on this account; for a job, all that it held."""
    column = {"program": executions.c.program, "key": executions.c.key_id}.get(row.scope)
    if column is None:
        return _MOST
    conditions = [executions.c.node == row.node, column == row.name]
    if row.scope == "program":
        # A key's are its own in whatever project it acted.
        conditions.append(executions.c.project == row.project)
    began = starts_at(row.period)
    if began is not None:
        conditions.append(executions.c.created_at >= began)
    cost = await session.execute(sa.select(sa.func.sum(executions.c.cost_usd)).where(*conditions))
    return nanodollars(cost.scalar_one() or 0.0)
