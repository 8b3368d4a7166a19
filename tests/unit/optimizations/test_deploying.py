"""Results that are deployed, once and only by who has the job."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from dspex.jobs import rules
from dspex.kit.errors import Unavailable
from dspex.optimizations.ports import OptimizerHost
from dspex.optimizations.records import Optimized, OptimizerTask
from tests.unit.optimizations.house import House, optimized


async def test_a_deployed_result_answers() -> None:
    at = await House().furnish()
    done = await at.take(await at.order(deploy=True))
    assert done.result is not None
    assert done.result["deployed"] is True
    assert (await at.version(2)).status == "deployed"
    assert await at.audited() == ["program.deploy"]


@pytest.mark.parametrize("how", ["paused", "cancel_asked", "taken over"])
async def test_who_has_lost_the_job_deploys_nothing(how: str) -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        # By another process, whose signal has not come yet.
        job = await at.job(made)
        now = datetime.now(UTC)
        if how == "paused":
            assert await at.store.change(job, rules.paused(job, now))
        elif how == "cancel_asked":
            assert await at.jobs_store.ask_cancel("default", made.id)
        else:
            lost = rules.lost(job, now)
            assert await at.store.change(job, lost)
            assert await at.store.change(lost, rules.begun(lost, "other", now))
        return optimized()

    at.optimizers.act = act
    made = await at.order(deploy=True)
    done = await at.take(made)
    assert (await at.version(1)).status == "deployed"
    assert (await at.version(2)).status == "optimized"
    if how == "cancel_asked":
        assert done.result is not None
        assert done.result["deployed"] is False
        assert "cancelled" in done.result["not_deployed"]
    else:
        assert (done.state, done.result) == ("paused" if how == "paused" else "running", None)


async def test_who_loses_the_job_while_it_deploys_deploys_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    at = await House().furnish()
    deploy = at.programs.deploy

    async def late(*given: Any, **more: Any) -> Any:
        # After everything was looked at, and before the transaction begins.
        await at.service.pause("default", made.id)
        return await deploy(*given, **more)

    monkeypatch.setattr(at.programs, "deploy", late)
    made = await at.order(deploy=True)
    paused = await at.take(made)
    assert (paused.state, paused.result) == ("paused", None)
    assert (await at.version(1)).status == "deployed"


async def test_who_cancels_what_is_deployed_already_comes_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    at = await House().furnish()
    deploy = at.programs.deploy

    async def slowly(*given: Any, **more: Any) -> Any:
        deployed = await deploy(*given, **more)
        await at.service.cancel("default", made.id)
        await asyncio.sleep(0)
        return deployed

    monkeypatch.setattr(at.programs, "deploy", slowly)
    made = await at.order(deploy=True)
    done = await at.take(made)
    assert done.state == "completed"
    assert done.result is not None
    assert (done.result["deployed"], (await at.version(2)).status) == (True, "deployed")
    events = [one.body["event"] for one in await at.store.events("default", made.id, after=0, limit=99)]
    assert events == ["status", "result"]


async def test_an_attempt_that_died_after_deploying_undoes_no_rollback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = await House().furnish()
    deploy = at.programs.deploy

    async def die(*given: Any, **more: Any) -> Any:
        await deploy(*given, **more)
        raise Unavailable("The database went away.", code="database_unavailable")

    monkeypatch.setattr(at.programs, "deploy", die)
    made = await at.order(deploy=True)
    assert (await at.take(made)).state == "queued"
    monkeypatch.setattr(at.programs, "deploy", deploy)
    assert (await at.version(2)).status == "deployed"
    await at.programs.rollback(await at.programs.get("default", "qa"))
    done = await at.take(made)
    assert done.result is not None
    assert (done.state, done.result["deployed"]) == ("completed", False)
    assert "deployed before" in done.result["not_deployed"]
    assert (await at.version(1)).status == "deployed"
