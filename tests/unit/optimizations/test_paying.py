"""Who pays for what: answers on record are not paid for again, and no budget is passed."""

import asyncio

import pytest

from dspex.configuration.gates import Gates
from dspex.executions.errors import WorkerDied
from dspex.kit.errors import Conflict, Invalid
from dspex.optimizations import running
from dspex.optimizations.errors import BudgetSpent
from dspex.optimizations.ports import OptimizerHost
from dspex.optimizations.records import Optimized, OptimizerTask
from tests.unit.optimizations.house import BETTER, COST, House, asked, candidate, optimized


@pytest.mark.parametrize("use_cache", [True, False])
async def test_a_killed_worker_costs_nothing_twice(use_cache: bool) -> None:
    at = await House().furnish()
    questions = ["a", "b", "a", "c", "d"]

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        replies = []
        for index, question in enumerate(questions):
            if task.attempt == 1 and index == 4:
                raise WorkerDied("The worker process was killed.")
            replies.append(await host.complete(asked(question)))
        return optimized(details={"replies": [reply["text"] for reply in replies]})

    at.optimizers.act = act
    made = await at.order(use_cache=use_cache)
    again = await at.take(made)
    assert (again.state, again.attempts) == ("queued", 1)
    paid_before = 3 if use_cache else 4
    assert at.model.asked == paid_before
    assert again.error is not None and again.error.code == "worker_died"
    done = await at.take(made)
    assert done.result is not None
    assert (done.state, done.attempts) == ("completed", 2)
    # The one that was not asked before, and nothing else.
    assert at.model.asked == paid_before + 1
    assert done.result["lm_calls"] == paid_before + 1
    assert done.result["cost_usd"] == pytest.approx((paid_before + 1) * COST)
    assert done.result["replayed_calls"] == 4
    assert done.result["repeated_calls"] == (1 if use_cache else 0)


async def test_a_call_in_flight_when_the_worker_dies_is_kept() -> None:
    at = await House().furnish()
    at.model.outcomes.extend([None])

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        if task.attempt == 1:
            asking = asyncio.create_task(host.complete(asked("slow")))
            await at.model.waiting.wait()
            asking.cancel()
            asyncio.get_running_loop().call_later(0.1, at.model.released.set)
            raise WorkerDied("The worker process was killed.")
        await host.complete(asked("slow"))
        return optimized()

    at.optimizers.act = act
    made = await at.order()
    assert (await at.take(made)).state == "queued"
    assert (await at.take(made)).state == "completed"
    assert at.model.asked == 1


async def test_a_paused_optimization_goes_on_for_free() -> None:
    at = await House().furnish()
    began = asyncio.Event()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        for question in ("a", "b"):
            await host.complete(asked(question))
        if not began.is_set():
            began.set()
            await asyncio.sleep(60)
        return optimized()

    at.optimizers.act = act
    made = await at.order()
    turn = asyncio.create_task(at.take(made))
    await began.wait()
    assert (await at.service.pause("default", made.id)).state == "paused"
    assert (await turn).state == "paused"
    assert at.optimizers.ended == ["killed"]
    # Not its turn.
    assert (await at.take(made)).state == "paused"
    with pytest.raises(Conflict):
        await at.service.pause("default", made.id)
    assert (await at.service.resume("default", made.id)).state == "queued"
    with pytest.raises(Conflict):
        await at.service.resume("default", made.id)
    done = await at.take(made)
    assert (done.state, done.attempts, at.model.asked) == ("completed", 1, 2)


async def test_the_budget_is_never_passed_and_the_best_is_kept() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        host.told({"event": "phase", "phase": "optimizing", "baseline_score": 0.25})
        host.told(candidate(1, 0.75, state=BETTER))
        await asyncio.gather(*(host.complete(asked(str(n))) for n in range(50)))
        return optimized()

    at.optimizers.act = act
    # Each call is set aside for at 30 tokens or so, and costs 0.03.
    done = await at.take(await at.order(budget_usd=0.2, threads=8))
    assert done.state == "completed", done.error
    assert done.result is not None
    assert (done.result["stopped"], done.result["version"], done.result["score"]) == ("budget", 2, 0.75)
    assert 0 < done.result["cost_usd"] <= 0.2
    assert at.model.asked == round(done.result["cost_usd"] / COST)
    assert done.result["remaining_usd"] == pytest.approx(0.2 - done.result["cost_usd"])


async def test_what_a_prediction_costs_leaves_out_what_the_metric_asks() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete({**asked("Judge 0"), "metric": True})
        host.told({"event": "phase", "phase": "scoring"})
        for number in range(len(task.validation)):
            await host.complete(asked(str(number)))
            # The first one is known from the baseline.
            await host.complete({**asked(f"Judge {number}"), "metric": True})
        return optimized()

    at.optimizers.act = act
    done = await at.take(await at.order())
    assert done.result is not None
    assert done.result["cost_usd_per_call"] == pytest.approx(COST)


@pytest.mark.parametrize("told", [True, False])
async def test_a_scoring_that_the_budget_ended_says_nothing_of_costs_nor_of_scores(told: bool) -> None:
    """`told`: by the worker, which had time for it."""
    at = await House().furnish(gates=Gates(max_cost_usd_per_call=1.0))

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        host.told(candidate(1, 0.75, state=BETTER, full=False, ours=False, examples=1))
        host.told({"event": "phase", "phase": "scoring"})
        await host.complete(asked())
        if told:
            return optimized(None, details={"stopped": "budget"})
        raise BudgetSpent("Nothing is left.")

    at.optimizers.act = act
    done = await at.take(await at.order(budget_usd=1.0))
    assert done.result is not None
    assert (done.result["stopped"], done.result["version"]) == ("budget", 2)
    assert (done.result["improved"], done.result["cost_usd_per_call"]) == (None, None)
    with pytest.raises(Conflict, match="what a prediction costs is not known"):
        await at.programs.deploy(at.program, await at.version(2))


async def test_a_worker_can_not_say_so_little_of_a_call_that_the_budget_lets_it_pass() -> None:
    at = await House().furnish()
    hidden = {"messages": [{"role": "user", "parts": [{"type": "text", "text": "x" * 3_000_000}]}]}

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        with pytest.raises(Invalid, match="max_tokens"):
            await host.complete({**asked(), "options": {"max_tokens": -(10**9)}})
        await host.complete({**asked(""), "canonical": {**hidden, "config": {"max_tokens": 2}}})
        return optimized()

    at.optimizers.act = act
    done = await at.take(await at.order(budget_usd=1.0))
    assert (done.state, at.model.asked) == ("failed", 0)
    assert done.error is not None and done.error.code == "optimization_budget"


async def test_a_budget_that_is_too_small_for_anything_says_so() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete(asked("a"))
        return optimized()

    at.optimizers.act = act
    done = await at.take(await at.order(budget_usd=0.001))
    assert done.state == "failed"
    assert done.error is not None and done.error.code == "optimization_budget"
    assert at.model.asked == 0


async def test_a_resumed_optimization_has_only_what_is_left_of_its_budget() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        host.told(candidate(1, 0.75, state=BETTER))
        for number in range(9):
            if task.attempt == 1 and number == 3:
                raise WorkerDied("The worker process was killed.")
            await host.complete(asked(str(number)))
        return optimized()

    at.optimizers.act = act
    made = await at.order(budget_usd=0.2)
    await at.take(made)
    done = await at.take(made)
    assert done.result is not None
    assert done.result["stopped"] == "budget"
    assert at.model.asked * COST <= 0.2


async def test_what_an_attempt_cost_is_an_execution_on_record() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete(asked("a"))
        return optimized()

    at.optimizers.act = act
    made = await at.order()
    await at.take(made)
    (account,) = await at.accounts()
    assert (account.program, account.request_id) == ("optimizations", made.id)
    assert (account.status, account.cost_usd, account.node) == ("completed", pytest.approx(COST), "me")
    assert account.usage["input_tokens"] == 10


async def test_what_a_pause_wastes_counts_against_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PATIENT_GRACE_S", 0.1)
    at = await House(model_timeout_s=0.1).furnish()
    made, turn = await at.in_flight(budget_usd=1.0)
    await at.service.pause("default", made.id)
    wasted = (await turn).standing.counters.wasted_usd
    assert wasted > 0
    await at.service.resume("default", made.id)
    done = await at.take(made)
    assert done.result is not None
    assert done.result["cost_usd"] == pytest.approx(wasted + COST)


async def test_what_an_optimization_spent_is_never_forgotten() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete(asked("a"))
        if task.attempt == 1:
            raise WorkerDied("The worker process was killed.")
        return optimized()

    at.optimizers.act = act
    made = await at.order(budget_usd=0.3)
    await at.take(made)
    at.journal.kept.clear()
    done = await at.take(made)
    assert done.result is not None
    assert (at.model.asked, done.result["lm_calls"]) == (2, 2)
    assert done.result["cost_usd"] == pytest.approx(2 * COST)
