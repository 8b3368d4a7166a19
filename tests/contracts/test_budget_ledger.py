"""The ledger of budgets, over memory, SQLite and PostgreSQL."""

import asyncio
from typing import Any

from msgspec.structs import replace

from dspex.gateway.budgeting import Account, Balance, Holding, nanodollars
from tests.contracts.conftest import Stores
from tests.making import NOON, execution, minutes

ACCOUNT = Account("default", "program", "qa", "2026-01")
LIMIT = 1000


def holding(
    spent: int = 0, held: int = 0, node: str = "n", account: Account = ACCOUNT, confirmed: int = 0
) -> Holding:
    return Holding(account, node, spent, held, confirmed)


async def book(stores: Stores, what: Holding, wanted: int = 0, least: int = 0, limit: int = LIMIT) -> int:
    loan = await stores.budgets.book(what, at=NOON, limit=limit, wanted=wanted, least=least)
    return loan.lent


async def balance(stores: Stores, account: Account = ACCOUNT) -> Balance:
    (found,) = await stores.budgets.balances(account.project, [account.period])
    return found


async def test_a_block_is_lent_spent_and_given_back(stores: Stores) -> None:
    assert await book(stores, holding(), wanted=100, least=10) == 100
    assert await balance(stores) == Balance(ACCOUNT, LIMIT, 0, 100, NOON)
    assert await book(stores, holding(spent=60, held=40)) == 0
    assert await balance(stores) == Balance(ACCOUNT, LIMIT, 60, 40, NOON)
    assert await book(stores, holding(spent=60)) == 0
    await stores.budgets.close(holding(spent=60), at=NOON)
    assert await balance(stores) == Balance(ACCOUNT, LIMIT, 60, 0, NOON)


async def test_the_rest_is_lent_while_it_is_enough(stores: Stores) -> None:
    assert await book(stores, holding(), wanted=900, least=1) == 900
    assert await book(stores, holding(node="other"), wanted=200, least=101) == 0
    assert await book(stores, holding(node="other"), wanted=200, least=100) == 100
    assert await book(stores, holding(node="third"), wanted=1, least=1) == 0
    assert await book(stores, holding(node="third"), wanted=50, least=50, limit=1040) == 0
    assert await book(stores, holding(node="third"), wanted=50, least=40, limit=1040) == 40
    assert await book(stores, holding(node="third", held=40), wanted=1, least=1, limit=10) == 0


async def test_booking_again_changes_nothing(stores: Stores) -> None:
    await book(stores, holding(), wanted=100, least=1)
    for _ in range(3):
        await book(stores, holding(spent=70, held=30))
    for _ in range(2):
        await stores.budgets.close(holding(spent=80), at=NOON)
    found = await balance(stores)
    assert (found.spent, found.held) == (80, 0)


async def test_what_was_lent_and_never_heard_of_comes_back(stores: Stores) -> None:
    await book(stores, holding(), wanted=400, least=1)
    # The answer got lost: the node knows of nothing and says so.
    assert await book(stores, holding(), wanted=1000, least=1) == 1000
    found = await balance(stores)
    assert (found.spent, found.held) == (0, 1000)


async def test_more_may_be_spent_than_was_lent_and_is_counted(stores: Stores) -> None:
    await book(stores, holding(), wanted=1000, least=1)
    await book(stores, holding(spent=1200, held=0))
    found = await balance(stores)
    assert (found.spent, found.held) == (1200, 0)
    assert await book(stores, holding(node="other"), wanted=1, least=1) == 0


async def test_accounts_are_apart(stores: Stores) -> None:
    others = [
        replace(ACCOUNT, project="other"),
        replace(ACCOUNT, scope="key"),
        replace(ACCOUNT, name="qa\x00'\ud800"),
        replace(ACCOUNT, period="2026-02"),
        ACCOUNT,
    ]
    for number, account in enumerate(others, 1):
        assert await book(stores, holding(account=account), wanted=LIMIT, least=LIMIT) == LIMIT, account
        await book(stores, holding(account=account, spent=number))
    found = await stores.budgets.balances("default", ["2026-01", "2026-02"])
    assert [(one.account.scope, one.account.name, one.account.period, one.spent) for one in found] == [
        ("key", "qa", "2026-01", 2),
        ("program", "qa", "2026-01", 5),
        ("program", "qa", "2026-02", 4),
        ("program", "qa\x00'\ud800", "2026-01", 3),
    ]
    assert await stores.budgets.balances("default", []) == []


async def test_many_nodes_at_once_are_lent_the_limit_and_no_more(stores: Stores) -> None:
    loans = await asyncio.gather(
        *(book(stores, holding(node=f"n{number}"), wanted=30, least=20) for number in range(40))
    )
    # 33 blocks, and a rest of 10 that is not enough for anyone.
    assert sorted(loans) == [0] * 7 + [30] * 33
    assert (await balance(stores)).held == 990


async def reap(stores: Stores) -> int:
    return await stores.budgets.reap(beat_before=NOON - minutes(1), booked_before=NOON + minutes(1))


async def test_what_dead_nodes_held_is_given_back_but_for_what_their_executions_cost(stores: Stores) -> None:
    await stores.nodes.beat("alive", NOON)
    await stores.nodes.beat("dead", NOON - minutes(5))
    usd = nanodollars(1.0)
    for node in ("alive", "dead", "unknown"):
        assert await book(stores, holding(node=node), wanted=20 * usd, least=1, limit=100 * usd) == 20 * usd
        await book(stores, holding(node=node, spent=1 * usd, held=19 * usd), limit=100 * usd)
    cost: dict[str, Any] = {"cost_usd": 2.0, "node": "dead"}
    await stores.executions.save(
        [
            execution(**cost),
            execution(**cost),
            execution(**cost, program="other"),
            execution(**cost, project="other"),
            execution(**cost | {"cost_usd": None}),
            execution(**cost | {"node": "alive"}),
            execution(**cost, created_at=NOON - minutes(60 * 24 * 40)),
        ]
    )
    assert await reap(stores) == 2
    found = await balance(stores)
    assert (found.spent, found.held) == (1 * usd + 4 * usd + 1 * usd, 19 * usd)
    assert await reap(stores) == 0


async def test_a_node_that_was_taken_for_dead_goes_on_from_what_it_had_booked(stores: Stores) -> None:
    await book(stores, holding(node="asleep"), wanted=100, least=1)
    await book(stores, holding(node="asleep", spent=40, held=60))
    assert await reap(stores) == 1
    await book(stores, holding(node="asleep", spent=41, held=0, confirmed=40))
    found = await balance(stores)
    assert (found.spent, found.held) == (41, 0)
    await book(stores, holding(node="asleep", spent=45, held=0, confirmed=41))
    assert (await balance(stores)).spent == 45


async def test_a_dead_node_can_have_spent_no_more_than_it_held(stores: Stores) -> None:
    of_key = replace(ACCOUNT, scope="key", name="k", period="total")
    await book(stores, holding(account=of_key, node="dead"), wanted=100, least=1)
    await stores.executions.save([execution(node="dead", key_id="k", cost_usd=5.0)])
    assert await reap(stores) == 1
    found = await balance(stores, of_key)
    assert (found.spent, found.held) == (100, 0)


async def test_what_a_key_spent_in_other_projects_before_its_node_died_is_on_its_account(
    stores: Stores,
) -> None:
    of_key = replace(ACCOUNT, scope="key", name="k")
    await book(stores, holding(account=of_key, node="dead"), wanted=1000, least=1)
    cost: dict[str, Any] = {"key_id": "k", "cost_usd": 1e-7}
    await stores.executions.save(
        [execution(**cost, node="dead"), execution(**cost, node="dead", project="other")]
    )
    assert await reap(stores) == 1
    assert (await balance(stores, of_key)).spent == 200


async def test_what_a_dead_node_held_of_a_job_counts_as_spent(stores: Stores) -> None:
    of_job = replace(ACCOUNT, scope="job", name="j")
    await book(stores, holding(account=of_job, node="dead"), wanted=100, least=1)
    assert await reap(stores) == 1
    found = await balance(stores, of_job)
    assert (found.spent, found.held) == (100, 0)


async def test_past_periods_are_forgotten_once_nobody_holds_them(stores: Stores) -> None:
    total = replace(ACCOUNT, period="total")
    for account in (ACCOUNT, replace(ACCOUNT, name="held"), total):
        await book(stores, holding(account=account, spent=1))
    for account in (ACCOUNT, total):
        await stores.budgets.close(holding(account=account, spent=1), at=NOON)
    assert await stores.budgets.forget(booked_before=NOON) == 0
    assert await stores.budgets.forget(booked_before=NOON + minutes(1)) == 1
    left = await stores.budgets.balances("default", ["2026-01", "total"])
    assert [(one.account.name, one.account.period) for one in left] == [("held", "2026-01"), ("qa", "total")]


async def test_a_node_without_a_heartbeat_that_books_is_not_dead(stores: Stores) -> None:
    await book(stores, holding(node="a command"), wanted=100, least=1)
    assert await stores.budgets.reap(beat_before=NOON, booked_before=NOON - minutes(1)) == 0
    assert (await balance(stores)).held == 100
