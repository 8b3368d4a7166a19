"""What models do to an optimization: limits, refusals, failures, and other models by the same name."""

from datetime import UTC, datetime
from typing import cast

import pytest

from dspex.configuration.models import ModelSettings
from dspex.executions.errors import WorkerDied
from dspex.gateway.errors import BreakerOpen, LMInvalidRequestError, LMRateLimitError, LMServerError
from dspex.optimizations.ports import OptimizerHost
from dspex.optimizations.records import Optimized, OptimizerTask
from tests.unit.gateway.scripted import REPLY
from tests.unit.optimizations.house import House, asked, optimized


async def test_a_rate_limit_gives_the_slot_up_and_costs_no_attempt() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        for question in ("a", "b"):
            await host.complete(asked(question))
        return optimized()

    at.optimizers.act = act
    at.model.outcomes.extend([REPLY, LMRateLimitError("slowly", retry_after=45)])
    made = await at.order()
    waiting = await at.take(made)
    job = await at.job(made)
    assert (waiting.state, waiting.attempts) == ("queued", 0)
    assert waiting.error is not None and waiting.error.code == "lm_rate_limited"
    assert (job.due_at - datetime.now(UTC)).total_seconds() > 30
    done = await at.take(made)
    assert (done.state, done.attempts) == ("completed", 1)
    # One that was limited, and each question once.
    assert at.model.asked == 3


async def test_it_looks_again_after_a_minute_when_nobody_knows_how_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dspex.optimizations.host.PATIENCE_S", 0.0)
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete(asked("a"))
        return optimized()

    at.optimizers.act = act
    at.model.outcomes.append(BreakerOpen("It stays open until an operator closes it."))
    made = await at.order()
    assert (await at.take(made)).state == "queued"
    job = await at.job(made)
    assert 50 < (job.due_at - datetime.now(UTC)).total_seconds() <= 60
    assert (await at.take(made)).state == "completed"


async def test_a_short_rate_limit_is_waited_out_in_place() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete(asked("a"))
        return optimized()

    at.optimizers.act = act
    at.model.outcomes.extend([LMRateLimitError("slowly", retry_after=0.1)] * 2)
    done = await at.take(await at.order())
    assert (done.state, done.attempts, at.model.asked) == ("completed", 1, 3)
    assert done.result is not None
    assert done.result["failed_calls"] == 2


async def test_what_the_model_refuses_the_optimizer_hears_and_hears_again() -> None:
    at = await House().furnish()
    heard: list[str] = []

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        try:
            await host.complete(asked("too long"))
        except Exception as error:
            heard.append(getattr(error, "code", ""))
        if task.attempt == 1:
            raise WorkerDied("The worker process was killed.")
        return optimized()

    at.optimizers.act = act
    at.model.outcomes.extend([LMInvalidRequestError("too long")])
    made = await at.order()
    await at.take(made)
    await at.take(made)
    assert heard == ["lm_invalid_request"] * 2
    assert at.model.asked == 1


async def test_a_model_that_is_down_uses_up_attempts() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete(asked("a"))
        return optimized()

    at.optimizers.act = act
    at.model.outcomes.extend([LMServerError("down", retry_after=30)] * 2)
    made = await at.order()
    first = await at.take(made)
    assert (first.state, first.attempts) == ("queued", 1)
    assert first.error is not None and first.error.code == "lm_server_error"
    assert (await at.take(made)).attempts == 2
    assert (await at.take(made)).state == "completed"


@pytest.mark.parametrize("alias", ["main", "other"])
async def test_answers_of_two_models_are_never_mixed(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete(asked("a"))
        if len(at.optimizers.tasks) == 1:
            raise WorkerDied("The worker process was killed.")
        await host.complete({**asked("b"), "alias": alias})
        return optimized()

    at.optimizers.act = act
    made = await at.order()
    assert (await at.take(made)).state == "queued"
    before = at.gateway._settings[alias]
    moved = ModelSettings(model="openai/another", api_base="http://elsewhere/v1")
    monkeypatch.setitem(cast(dict[str, ModelSettings], at.gateway._settings), alias, moved)
    failed = await at.take(made)
    assert (failed.state, at.model.asked) == ("failed", 1)
    assert failed.error is not None and failed.error.code == "model_changed"
    assert f"{alias!r} was {before.model}" in failed.error.message
    assert "is openai/another at http://elsewhere/v1 now" in failed.error.message
    monkeypatch.setitem(cast(dict[str, ModelSettings], at.gateway._settings), alias, before)
    await at.jobs.retry("default", made.id)
    done = await at.take(made)
    # What was paid for before is not paid again.
    assert (done.state, at.model.asked) == ("completed", 2)


async def test_a_model_that_may_answer_for_another_is_the_same_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = await House().furnish()
    settings = cast(dict[str, ModelSettings], at.gateway._settings)
    monkeypatch.setitem(settings, "main", settings["main"].model_copy(update={"fallbacks": ("other",)}))

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete(asked("a"))
        return optimized()

    at.optimizers.act = act
    made = await at.order()
    monkeypatch.delitem(settings, "other")
    failed = await at.take(made)
    assert failed.error is not None and failed.error.code == "model_changed"
    assert (
        "'other' was openai/gpt-4o when this optimization was ordered, and is gone now"
        in failed.error.message
    )
