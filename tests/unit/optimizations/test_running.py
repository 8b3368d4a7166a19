"""One optimization as a job, with a scripted optimizer: what is kept, what is paid, and how it ends."""

import pytest

from dspex.configuration.gates import Gates
from dspex.executions.errors import ProgramFailed, WorkerDied
from dspex.kit.errors import Conflict, TimedOut
from dspex.optimizations.errors import BudgetSpent
from dspex.optimizations.ports import OptimizerHost
from dspex.optimizations.records import Optimized, OptimizerTask
from tests.unit.optimizations.house import BETTER, COST, House, asked, candidate, optimized


async def test_a_better_program_becomes_a_version_with_its_lineage() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        host.told({"event": "phase", "phase": "baseline"})
        await host.complete(asked("a"))
        host.told({"event": "phase", "phase": "scoring"})
        await host.complete(asked("b"))
        demos = [{"predictor": "self", "index": 0, "row": task.train[0]["id"], "source": "labelled"}]
        return optimized(demos=demos, details={"instructions": "x"})

    at.optimizers.act = act
    made = await at.order(seed=3, metric="f1", config={"max_rounds": 2})
    assert made.state == "queued"
    done = await at.take(made)
    assert (done.state, done.error, done.attempts) == ("completed", None, 1)
    assert done.result is not None
    assert (done.result["score"], done.result["baseline_score"], done.result["version"]) == (0.9, 0.5, 2)
    assert done.result["cost_usd"] == pytest.approx(2 * COST)
    assert done.result["cost_usd_per_point"] == pytest.approx(2 * COST / 40)
    assert done.result["cost_usd_per_call"] == pytest.approx(COST / 3)
    version = await at.version(2)
    assert (version.status, version.parent_id) == ("optimized", made.plan.version_id)
    assert version.definition.state == BETTER
    lineage = dict(version.lineage or {})
    assert lineage["parent"] == {"version": 1, "digest": made.plan.digest}
    assert lineage["dataset"]["name"] == "questions"
    assert lineage["demos"][0]["row"] == at.optimizers.tasks[0].train[0]["id"]
    known = (lineage["optimizer"], lineage["seed"], lineage["metric"], lineage["config"])
    assert known == ("BootstrapFewShot", 3, {"name": "f1"}, {"max_rounds": 2})
    # What answers is still what answered before.
    assert (await at.version(1)).status == "deployed"
    events = [one.body["event"] for one in await at.store.events("default", made.id, after=0, limit=99)]
    assert events == ["status", "phase", "phase", "result"]


async def test_the_rows_are_held_out_by_the_seed() -> None:
    at = await House().furnish(rows=20)
    first, second = await at.order(seed=1), await at.order(seed=1, optimizer="LabeledFewShot")
    for one in (first, second):
        assert (await at.take(one)).state == "completed"
    one, same = at.optimizers.tasks
    assert (one.train, one.validation) == (same.train, same.validation)
    assert (len(one.train), len(one.validation)) == (14, 6)
    assert not {row["id"] for row in one.train} & {row["id"] for row in one.validation}


async def test_a_result_that_is_no_better_makes_no_version_unless_somebody_wants_it() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        host.told(candidate(1, 0.5, state=BETTER))
        return optimized(score=0.5)

    at.optimizers.act = act
    made = await at.order(deploy=True)
    done = await at.take(made)
    assert done.result is not None
    assert (done.result["improved"], done.result["version"], done.result["deployed"]) == (False, None, False)
    assert done.result["cost_usd_per_point"] is None
    kept = await at.service.keep("default", made.id)
    assert (kept.number, kept.status) == (2, "optimized")
    assert (await at.service.keep("default", made.id)).number == 2


async def test_three_attempts_and_no_more() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        raise WorkerDied("The worker process was killed.")

    at.optimizers.act = act
    made = await at.order()
    assert [(await at.take(made)).state for _ in range(3)] == ["queued", "queued", "failed"]


async def test_an_optimizer_that_fails_fails_at_once() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        raise ProgramFailed("It raised ValueError.", code="optimizer_failed")

    at.optimizers.act = act
    done = await at.take(await at.order())
    assert done.state == "failed"
    assert done.error is not None and done.error.code == "optimizer_failed"
    (account,) = await at.accounts()
    assert (account.program, account.status) == ("optimizations", "failed")


@pytest.mark.parametrize("first", [0, 1])
async def test_only_a_score_on_what_was_held_out_is_one_of_a_version(first: int) -> None:
    at = await House().furnish(gates=Gates(min_score=0.9))
    signature = {"instructions": "Scored on three rows.", "fields": []}
    told = [
        candidate(1, 1.0, state={**BETTER, "signature": signature}, full=False, ours=False, examples=3),
        candidate(2, 0.55, state=BETTER),
    ]

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        host.told(told[first])
        host.told(told[1 - first])
        raise TimedOut("The deadline passed.")

    at.optimizers.act = act
    done = await at.take(await at.order())
    kept = await at.service.keep("default", done.id)
    assert kept.definition.state == BETTER
    assert (kept.lineage or {})["score"] == 0.55
    with pytest.raises(Conflict, match=r"scored 0\.55 and needs 0\.9"):
        await at.programs.deploy(at.program, kept)


@pytest.mark.parametrize("end", [TimedOut("The deadline passed."), BudgetSpent("Nothing is left.")])
async def test_a_best_that_was_scored_on_a_few_examples_has_no_score(end: Exception) -> None:
    at = await House().furnish(gates=Gates(min_score=0.1))
    demos = [{"predictor": "self", "index": 0, "row": "r1", "source": "labelled"}]

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        host.told(candidate(1, 1.0, state=BETTER, full=False, ours=False, examples=3, demos=demos))
        raise end

    at.optimizers.act = act
    done = await at.take(await at.order(deploy=True))
    if done.result is not None:
        assert (done.result["score"], done.result["deployed"]) == (None, False)
        assert "not scored on what was held out" in done.result["not_deployed"]
    kept = await at.service.keep("default", done.id)
    assert ((kept.lineage or {})["score"], (kept.lineage or {})["demos"]) == (None, demos)
    with pytest.raises(Conflict, match="has no score on held-out examples"):
        await at.programs.deploy(at.program, kept)


async def test_a_score_of_too_few_examples_makes_no_version() -> None:
    at = await House().furnish()
    doubts = "3 of 10 examples could not be scored before and after"

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        return optimized(0.9, 0.5, details={"unreliable": doubts})

    at.optimizers.act = act
    done = await at.take(await at.order(deploy=True))
    assert done.result is not None
    assert (done.result["improved"], done.result["version"], done.result["deployed"]) == (False, None, False)
    assert doubts in done.result["not_deployed"]
    assert done.result["details"]["unreliable"] == doubts


async def test_a_dataset_that_is_deleted_meanwhile_ends_it() -> None:
    at = await House().furnish()
    made = await at.order()
    await at.datasets.delete("default", "questions")
    done = await at.take(made)
    assert done.state == "failed"
    assert done.error is not None and done.error.code == "dataset_missing"
