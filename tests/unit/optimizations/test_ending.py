"""Optimizations that are cancelled, paused, or out of time."""

import asyncio

import pytest

from dspex.kit.errors import Conflict, TimedOut
from dspex.optimizations import running
from dspex.optimizations.ports import OptimizerHost
from dspex.optimizations.records import Optimized, OptimizerTask
from tests.unit.optimizations.house import BETTER, COST, House, asked, candidate, optimized, until


async def test_cancelling_keeps_the_best_so_far() -> None:
    at = await House().furnish()
    began = asyncio.Event()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        host.told(candidate(1, 0.4, state=BETTER))
        await host.complete(asked("a"))
        began.set()
        await asyncio.sleep(60)
        return optimized()

    at.optimizers.act = act
    made = await at.order()
    turn = asyncio.create_task(at.take(made))
    await began.wait()
    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    await at.service.cancel("default", made.id)
    done = await turn
    assert loop.time() - asked_at < 3
    assert (done.state, at.optimizers.ended) == ("cancelled", ["killed"])
    assert done.standing.best is not None
    assert (done.standing.best.score, done.standing.counters.lm_calls) == (0.4, 1)
    version = await at.service.keep("default", made.id)
    assert version.definition.state == BETTER
    assert (version.lineage or {})["stopped"] == "cancelled"
    with pytest.raises(Conflict):
        await at.service.cancel("default", made.id)


async def test_nothing_found_is_nothing_to_keep() -> None:
    at = await House().furnish()
    made = await at.order()
    await at.service.cancel("default", made.id)
    with pytest.raises(Conflict) as refused:
        await at.service.keep("default", made.id)
    assert refused.value.code == "nothing_found"


async def test_nothing_is_kept_of_one_that_goes_on() -> None:
    at = await House().furnish()
    began = asyncio.Event()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        host.told(candidate(1, 0.75, state=BETTER))
        began.set()
        await asyncio.sleep(600)
        return optimized()

    at.optimizers.act = act
    made = await at.order()
    turn = asyncio.create_task(at.take(made))
    await began.wait()
    async with asyncio.timeout(60):
        while (await at.now(made)).standing.best is None:
            await asyncio.sleep(0.01)
    with pytest.raises(Conflict) as refused:
        await at.service.keep("default", made.id)
    assert refused.value.code == "optimization_unfinished"
    await at.service.cancel("default", made.id)
    await turn
    assert ((await at.service.keep("default", made.id)).lineage or {})["score"] == 0.75


async def test_an_optimizer_may_not_run_for_ever() -> None:
    at = await House(timeout_s=0.05).furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        host.told(candidate(1, 0.75, state=BETTER))
        raise TimedOut("The deadline passed.")

    at.optimizers.act = act
    made = await at.order()
    done = await at.take(made)
    assert done.state == "failed"
    assert done.error is not None and done.error.code == "optimization_timeout"
    assert (await at.service.keep("default", made.id)).number == 2


def tasks_left() -> set[str]:
    """Of the attempt: whatever the test did not begin itself."""
    mine = asyncio.current_task()
    return {str(one.get_coro()) for one in asyncio.all_tasks() if one is not mine and not one.done()}


@pytest.mark.parametrize("ending", ["pause", "cancel"])
async def test_being_told_twice_to_end_leaves_nothing_behind(
    ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "GRACE_S", 0.3)
    monkeypatch.setattr(running, "PATIENT_GRACE_S", 0.3)
    at = await House(model_timeout_s=0.1).furnish()
    made, turn = await at.in_flight()
    await getattr(at.service, ending)("default", made.id)
    await until(lambda: at.optimizers.ended)
    # The heartbeat, that sees the same again, and somebody who is impatient.
    for _ in range(3):
        await at.worker.look_after()
        at.worker.cancel("default", made.id)
        await asyncio.sleep(0)
    done = await turn
    assert done.state == {"pause": "paused", "cancel": "cancelled"}[ending]
    assert tasks_left() == set()
    (account,) = await at.accounts()
    assert (account.status, account.completed_at is not None) == ("cancelled", True)


async def test_a_pause_waits_for_what_is_paid_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "GRACE_S", 0.1)
    monkeypatch.setattr(running, "PATIENT_GRACE_S", 0.1)
    at = await House().furnish()
    made, turn = await at.in_flight()
    await at.service.pause("default", made.id)
    # Longer than whoever cancels or stops is made to wait, and less than the model may take.
    asyncio.get_running_loop().call_later(0.3, at.model.released.set)
    paused = await turn
    assert paused.state == "paused"
    # The last note comes after the pause: it counts all the same.
    assert (paused.standing.counters.lm_calls, paused.standing.counters.cost_usd) == (1, pytest.approx(COST))
    await at.service.resume("default", made.id)
    done = await at.take(made)
    assert (done.state, at.model.asked) == ("completed", 1)
    assert done.standing.counters.replayed_calls == 1
