"""Budgets around a call: reserved before, settled after, a hard stop."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR
from dspex.configuration.spending import Budget
from dspex.evaluations.budget import Cap
from dspex.gateway.budgeting import Balance, Holding, Loan, dollars, periods_at
from dspex.gateway.errors import LMServerError, LMTimeoutError
from dspex.gateway.leases import BudgetLeases
from dspex.gateway.records import LanguageModelReply, Usage
from dspex.gateway.steps.budgets import Budgets
from dspex.kit.errors import Exhausted, Invalid, Unavailable
from dspex.kit.waiting import Waiting
from dspex.providers.memory.budgets import MemoryBudgets
from dspex.providers.memory.executions import MemoryExecutions, MemoryNodes
from tests.clock import FakeClock
from tests.unit.gateway.scripted import CALLER, REPLY, Model, PerToken, context, gateway, request, until

# request() is reserved with 100 x 0.001 + 10 x 0.01 dollars, and REPLY costs 10 x 0.001 + 2 x 0.01.
RESERVED, COST, PROMPT = 0.2, 0.03, 0.1


class Ledger(MemoryBudgets):
    """Can be away, and waits for `slow` when it is set."""

    def __init__(self) -> None:
        nodes = MemoryNodes()
        super().__init__(nodes, MemoryExecutions(nodes))
        self.away = False
        self.asked = 0
        self.slow: asyncio.Event | None = None

    async def book(self, holding: Holding, **more: Any) -> Loan:
        self.asked += 1
        if self.slow is not None:
            await self.slow.wait()
        if self.away:
            raise Unavailable("The database is unavailable.", code="database_unavailable")
        return await super().book(holding, **more)

    async def close(self, holding: Holding, **more: Any) -> None:
        if self.away:
            raise Unavailable("The database is unavailable.", code="database_unavailable")
        await super().close(holding, **more)


class Bench:
    def __init__(self, prices: PerToken | None = None, **settings: Any) -> None:
        self.clock = FakeClock()
        self.ledger = Ledger()
        self.leases = BudgetLeases(self.ledger, "node", self.clock)
        self.model = Model()
        prices = prices or PerToken()
        self.gateway = gateway(self.model, prices, self.clock, Budgets(self.leases, prices), **settings)

    async def ask(self, usd: float = 1.0, per: Any = "month", **more: Any) -> LanguageModelReply:
        return await self.gateway.complete(request(), context(budget=Budget(usd, per), **more))

    async def balances(self) -> list[Balance]:
        return list(await self.ledger.balances("default", periods_at(self.clock.now())))

    async def spent(self) -> float:
        await self.leases.tend()
        return sum(dollars(one.spent) for one in await self.balances())


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.ledger.away = False
    await made.leases.aclose()


async def test_a_call_without_a_budget_asks_nobody(bench: Bench) -> None:
    bench.ledger.away = True
    assert await bench.gateway.complete(request(), context()) is REPLY
    assert (
        await bench.gateway.complete(request(), context(replace(LOCAL_OPERATOR, budget=Budget(1)))) is REPLY
    )
    assert bench.ledger.asked == 0


async def test_calls_are_settled_at_what_they_cost(bench: Bench) -> None:
    for _ in range(20):
        assert await bench.ask() is REPLY
    assert await bench.spent() == pytest.approx(20 * COST)


async def test_a_used_up_budget_stops_calls_and_says_when_it_begins_anew(bench: Bench) -> None:
    for _ in range(27):
        await bench.ask()
    # 0.81 are spent: another call might cost too much.
    with pytest.raises(Exhausted) as stopped:
        await bench.ask()
    error = stopped.value
    assert error.code == "budget_exhausted"
    assert "program 'qa'" in error.message
    assert "$0.81 is spent" in error.message
    assert "2026-02-01T00:00Z" in error.message
    assert error.retry_after == 12 * 3600
    assert bench.model.asked == 27
    bench.clock.advance(12 * 3600)
    assert await bench.ask() is REPLY


async def test_what_a_program_says_beside_its_messages_is_reserved_as_well(bench: Bench) -> None:
    hidden = {"messages": [{"role": "user", "parts": [{"type": "text", "text": "x" * 30_000}]}]}
    asked = replace(request("", max_tokens=1), canonical={**hidden, "config": {"max_tokens": 1}})
    with pytest.raises(Exhausted) as stopped:
        await bench.gateway.complete(asked, context(budget=Budget(1.0, "day")))
    assert stopped.value.code == "budget_exhausted"
    with pytest.raises(Exhausted) as stopped:
        await bench.gateway.complete(asked, context(cap=Cap(1.0, spent_usd=0.0)))
    assert stopped.value.code == "evaluation_budget"
    assert bench.model.asked == 0


async def test_a_total_budget_never_begins_anew(bench: Bench) -> None:
    with pytest.raises(Exhausted) as stopped:
        await bench.ask(usd=0.1, per="total")
    assert stopped.value.retry_after is None
    assert "in all" in stopped.value.message


async def test_a_raised_budget_counts_at_once(bench: Bench) -> None:
    with pytest.raises(Exhausted):
        await bench.ask(usd=0.1)
    assert await bench.ask(usd=0.3) is REPLY


async def test_what_calls_in_flight_may_cost_is_taken(bench: Bench) -> None:
    bench.model.outcomes.extend([None] * 5)
    calls = [asyncio.create_task(bench.ask()) for _ in range(5)]
    await until(lambda: bench.model.asked == 5)
    with pytest.raises(Exhausted, match="taken for now") as stopped:
        await bench.ask()
    assert stopped.value.retry_after == 1
    bench.model.released.set()
    await asyncio.gather(*calls)
    assert await bench.ask() is REPLY
    assert await bench.spent() == pytest.approx(6 * COST)


async def test_a_full_budget_is_not_asked_about_by_every_call(bench: Bench) -> None:
    for _ in range(50):
        with pytest.raises(Exhausted):
            await bench.ask(usd=0.1)
    assert bench.ledger.asked == 1
    bench.clock.advance(1.1)
    with pytest.raises(Exhausted):
        await bench.ask(usd=0.1)
    assert bench.ledger.asked == 2


async def test_all_budgets_of_a_call_are_charged_or_none(bench: Bench) -> None:
    caller = replace(CALLER, budget=Budget(10))
    await bench.ask(principal=caller)
    await bench.leases.tend()
    assert [(one.account.scope, dollars(one.spent)) for one in await bench.balances()] == [
        ("key", pytest.approx(COST)),
        ("program", pytest.approx(COST)),
    ]
    with pytest.raises(Exhausted, match="program 'qa'"):
        await bench.ask(usd=0.01, principal=caller)
    bench.clock.advance(6)
    await bench.leases.tend()
    of_key = next(one for one in await bench.balances() if one.account.scope == "key")
    assert (dollars(of_key.spent), of_key.held) == (pytest.approx(COST), 0)


async def test_a_key_that_acts_in_many_projects_has_one_budget(bench: Bench) -> None:
    admin = replace(CALLER, budget=Budget(0.2))
    await bench.ask(principal=admin)
    with pytest.raises(Exhausted, match="key 'k1'"):
        await bench.ask(principal=replace(admin, project="other"))


async def test_an_unknown_price_is_refused_and_never_guessed() -> None:
    bench = Bench(PerToken({}))
    with pytest.raises(Invalid, match="pricing") as refused:
        await bench.ask()
    assert refused.value.code == "budget_needs_price"
    assert bench.model.asked == 0
    bench = Bench(fallbacks=("other",))
    with pytest.raises(Invalid, match="'other'"):
        await bench.ask()


async def test_the_dearest_of_a_calls_models_is_reserved() -> None:
    bench = Bench(PerToken({"main": (0.001, 0.01), "other": (0.1, 1.0)}), fallbacks=("other",))
    with pytest.raises(Exhausted, match=r"this call may cost \$20.00"):
        await bench.ask(usd=19)


async def test_a_failed_call_costs_nothing(bench: Bench) -> None:
    bench.model.outcomes.append(LMServerError("It failed."))
    with pytest.raises(LMServerError):
        await bench.ask()
    assert await bench.spent() == 0


async def test_a_call_that_is_given_up_costs_its_prompt(bench: Bench) -> None:
    bench.model.outcomes.append(None)
    call = asyncio.create_task(bench.ask())
    await bench.model.waiting.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await bench.spent() == pytest.approx(PROMPT)
    bench.model.outcomes.append(LMTimeoutError("Too slow."))
    with pytest.raises(LMTimeoutError):
        await bench.ask()
    assert await bench.spent() == pytest.approx(2 * PROMPT)


async def test_an_answer_that_does_not_say_what_it_took_costs_what_was_reserved(bench: Bench) -> None:
    bench.model.outcomes.append(replace(REPLY, usage=Usage()))
    await bench.ask()
    assert await bench.spent() == pytest.approx(RESERVED)


async def test_an_answer_may_cost_more_than_was_reserved_and_counts_whole(bench: Bench) -> None:
    bench.model.outcomes.append(replace(REPLY, usage=Usage(10, 200, 210)))
    await bench.ask()
    assert await bench.spent() == pytest.approx(2.01)
    with pytest.raises(Exhausted, match="used up"):
        await bench.ask()


async def test_a_block_serves_many_calls_while_the_ledger_is_away(bench: Bench) -> None:
    await bench.ask(usd=100)
    bench.ledger.away = True
    # The first call took a fiftieth: two dollars.
    for _ in range(60):
        await bench.ask(usd=100)
    with pytest.raises(Unavailable) as refused:
        await bench.ask(usd=100)
    assert refused.value.code == "database_unavailable"
    bench.ledger.away = False
    assert await bench.ask(usd=100) is REPLY
    assert await bench.spent() == pytest.approx(62 * COST)


async def test_what_is_idle_is_given_back_and_past_periods_are_closed(bench: Bench) -> None:
    await bench.ask(usd=100, per="day")
    await bench.leases.tend()
    (before,) = await bench.balances()
    assert before.held > 0
    bench.clock.advance(5.1)
    await bench.leases.tend()
    (after,) = await bench.balances()
    assert (dollars(after.spent), after.held) == (pytest.approx(COST), 0)
    bench.clock.advance(86_400)
    await bench.leases.tend()
    assert bench.ledger._holdings == {}
    assert bench.leases._accounts == {}


async def test_after_a_rush_a_busy_node_keeps_a_block_and_no_more(bench: Bench) -> None:
    bench.model.outcomes.extend([None] * 40)
    calls = [asyncio.create_task(bench.ask(usd=10)) for _ in range(40)]
    await until(lambda: bench.model.asked == 40)
    await bench.leases.tend()
    (during,) = await bench.balances()
    assert dollars(during.held) == pytest.approx(40 * RESERVED)
    bench.model.released.set()
    await asyncio.gather(*calls)
    await bench.leases.tend()
    (after,) = await bench.balances()
    assert (dollars(after.spent), dollars(after.held)) == (pytest.approx(40 * COST), 0.2)


async def test_a_call_across_midnight_belongs_to_the_day_it_began_in(bench: Bench) -> None:
    bench.model.outcomes.append(None)
    call = asyncio.create_task(bench.ask(per="day"))
    await bench.model.waiting.wait()
    day = bench.clock.now()
    bench.clock.advance(86_400)
    await bench.leases.tend()
    bench.model.released.set()
    await call
    bench.clock.advance(6)
    await bench.leases.tend()
    (balance,) = await bench.ledger.balances("default", periods_at(day))
    assert (balance.account.period, dollars(balance.spent), balance.held) == (
        "2026-01-31",
        pytest.approx(COST),
        0,
    )


async def test_a_wall_clock_that_jumps_loses_and_frees_nothing(bench: Bench) -> None:
    await bench.ask(per="day")
    for jump in (-86_400, 2 * 86_400, -86_400):
        bench.clock.jump(jump)
        await bench.ask(per="day")
        await bench.leases.tend()
    balances = [
        one
        for days in ("2026-01-30", "2026-01-31", "2026-02-01")
        for one in await bench.ledger.balances("default", [days])
    ]
    assert [round(dollars(one.spent) / COST) for one in balances] == [1, 2, 1]


async def test_closing_books_and_gives_back_everything(bench: Bench) -> None:
    await bench.ask(usd=100)
    await bench.leases.aclose()
    (balance,) = await bench.balances()
    assert (dollars(balance.spent), balance.held) == (pytest.approx(COST), 0)


async def test_closing_without_a_database_ends(bench: Bench) -> None:
    await bench.ask()
    bench.ledger.away = True
    await bench.leases.aclose()


async def test_waiting_callers_share_one_question_and_leave_no_trace_when_cancelled(bench: Bench) -> None:
    bench.ledger.slow = asyncio.Event()
    calls = [asyncio.create_task(bench.ask()) for _ in range(4)]
    await until(lambda: bench.ledger.asked == 1)
    await asyncio.sleep(0)
    calls[0].cancel()
    calls[2].cancel()
    bench.ledger.slow.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in outcomes] == [True, False, True, False]
    assert await bench.spent() == pytest.approx(2 * COST)
    bench.clock.advance(6)
    await bench.leases.tend()
    (balance,) = await bench.balances()
    assert balance.held == 0


async def test_the_cap_of_a_piece_of_work_holds_with_its_calls_in_flight(bench: Bench) -> None:
    bench.ledger.away = True
    cap = Cap(0.5, spent_usd=0.05)
    bench.model.outcomes.extend([None, None])
    # Each is set aside for at 0.2: two fit beside what is spent, the third waits for them.
    asked = [asyncio.create_task(bench.gateway.complete(request(), context(cap=cap))) for _ in range(3)]
    await until(lambda: bench.model.asked == 2)
    for _ in range(100):
        await asyncio.sleep(0)
    assert bench.model.asked == 2
    bench.model.released.set()
    assert await asyncio.gather(*asked) == [REPLY] * 3
    # 0.14 are spent. What is given up costs its prompt, what fails nothing.
    bench.model.released.clear()
    bench.model.outcomes.extend([None, LMServerError("down")])
    given_up = asyncio.create_task(bench.gateway.complete(request(), context(cap=cap)))
    await until(lambda: bench.model.asked == 4)
    given_up.cancel()
    await asyncio.wait([given_up])
    with pytest.raises(LMServerError):
        await bench.gateway.complete(request(), context(cap=cap))
    # 0.24: two more, and with 0.3 none.
    for _ in range(2):
        await bench.gateway.complete(request(), context(cap=cap))
    cap.count(0.01)
    with pytest.raises(
        Exhausted, match=r"\$0.50, is used up: \$0.31 is spent, and the next call may cost \$0.20"
    ) as told:
        await bench.gateway.complete(request(), context(cap=cap))
    assert told.value.code == "evaluation_budget"
    assert (bench.model.asked, bench.ledger.asked) == (7, 0)


async def test_how_long_a_cap_had_no_room_for_a_call_is_known(bench: Bench) -> None:
    cap, held = Cap(0.3, spent_usd=0.0), [Waiting(bench.clock), Waiting(bench.clock)]
    bench.model.outcomes.extend([None, None])
    asked = [
        asyncio.create_task(bench.gateway.complete(request(), context(cap=cap, held=one))) for one in held
    ]
    await until(lambda: bench.model.asked == 1)
    bench.clock.advance(3.0)
    bench.model.released.set()
    await asyncio.gather(*asked)
    bench.clock.advance(3.0)
    assert [one.total_s for one in held] == [0.0, 3.0]
