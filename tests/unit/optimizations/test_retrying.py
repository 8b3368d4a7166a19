"""Optimizations that are retried by hand."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from dspex.executions.errors import ProgramFailed
from dspex.gateway.errors import LMInvalidRequestError
from dspex.kit.errors import Conflict, DspexError, TimedOut
from dspex.optimizations.ports import OptimizerHost
from dspex.optimizations.records import Optimized, OptimizerTask
from tests.unit.optimizations.house import House, asked, optimized


async def test_a_retry_by_hand_has_all_the_time_again() -> None:
    at = await House(timeout_s=30.0).furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        if len(at.optimizers.tasks) == 1:
            raise TimedOut("The deadline passed.")
        return optimized()

    at.optimizers.act = act
    made = await at.order()
    failed = await at.take(made)
    # As if it had run for hours.
    hours = replace(failed.standing, counters=replace(failed.standing.counters, running_s=9000.0))
    assert await at.store.note(await at.job(made), hours)
    await at.jobs.retry("default", made.id)
    done = await at.take(made)
    assert done.state == "completed"
    assert done.standing.counters.running_s < 9000
    first, second = at.optimizers.tasks
    assert second.deadline - first.deadline > -1


async def test_a_retry_by_hand_never_pays_for_everything_again() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        for number in range(5):
            await host.complete(asked(str(number)))
        raise ProgramFailed("It raised ValueError.", code="optimizer_failed")

    at.optimizers.act = act
    made = await at.order(budget_usd=0.3)
    failed = await at.take(made)
    assert failed.state == "failed"
    await at.jobs.retry("default", made.id)
    failed = await at.take(made)
    assert (failed.standing.counters.lm_calls, at.model.asked) == (5, 5)
    assert await at.store.prune(ended_before=datetime.now(UTC) + timedelta(seconds=1)) == 1
    with pytest.raises(Conflict) as refused:
        await at.jobs.retry("default", made.id)
    assert refused.value.code == "journal_deleted"
    assert (await at.now(made)).state == "failed"


async def test_a_retry_by_hand_asks_again_what_failed_while_a_model_was_away() -> None:
    at = await House().furnish()
    heard: list[str] = []

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        for question in ("away", "too long"):
            try:
                await host.complete(asked(question))
            except DspexError as error:
                heard.append(error.code)
        if len(at.optimizers.tasks) == 1:
            raise ProgramFailed("It raised ValueError.", code="optimizer_failed")
        return optimized()

    at.optimizers.act = act
    at.model.outcomes.extend([LMInvalidRequestError("away"), LMInvalidRequestError("too long")])
    made = await at.order()
    assert (await at.take(made)).state == "failed"
    # As one is journaled that failed five times while others were answered.
    places = at.journal.kept["default", made.id]
    first = next(iter(places))
    away = {"error": {"kind": "unavailable", "code": "lm_server_error", "message": "down"}}
    places[first] = replace(places[first], reply=away)
    await at.jobs.retry("default", made.id)
    assert (await at.take(made)).state == "completed"
    # The first is answered now; what is refused for good is not asked again.
    assert heard == ["lm_invalid_request"] * 3
    assert at.model.asked == 3
