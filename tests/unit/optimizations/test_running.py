"""One optimization as a job, with a scripted optimizer: what is kept, what is paid, and how it ends."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from msgspec.structs import replace

from dspex.configuration.gates import Gates
from dspex.configuration.models import ModelSettings
from dspex.executions.errors import ProgramFailed, WorkerDied
from dspex.gateway.errors import LMInvalidRequestError, LMRateLimitError, LMServerError
from dspex.jobs import rules
from dspex.jobs.records import Job
from dspex.kit.errors import Conflict, DspexError, TimedOut, Unavailable
from dspex.optimizations import running
from dspex.optimizations.errors import BudgetSpent
from dspex.optimizations.ports import OptimizerHost
from dspex.optimizations.records import Event, Optimized, OptimizerTask, Standing
from tests.unit.gateway.scripted import REPLY
from tests.unit.optimizations.house import BETTER, COST, House, asked, optimized


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def candidate(number: int, score: float, **more: Any) -> dict[str, Any]:
    """One that was scored on all of the held-out rows."""
    told = {"event": "candidate", "number": number, "of": 3, "score": score, "best": True}
    return {**told, "full": True, "ours": True, **more}


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


async def test_a_deployed_result_answers() -> None:
    at = await House().furnish()
    done = await at.take(await at.order(deploy=True))
    assert done.result is not None
    assert done.result["deployed"] is True
    assert (await at.version(2)).status == "deployed"
    assert await at.audited() == ["program.deploy"]


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


async def test_a_dataset_that_is_deleted_meanwhile_ends_it() -> None:
    at = await House().furnish()
    made = await at.order()
    await at.datasets.delete("default", "questions")
    done = await at.take(made)
    assert done.state == "failed"
    assert done.error is not None and done.error.code == "dataset_missing"


async def test_the_best_program_is_written_when_there_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "FLUSH_S", 0.01)
    at = await House().furnish()
    written: list[tuple[int, bool]] = []
    noted = at.store.note

    async def note(job: Job, standing: Standing, events: Sequence[Event] = (), *, best: bool = True) -> bool:
        written.append((standing.candidates, best))
        return await noted(job, standing, events, best=best)

    monkeypatch.setattr(at.store, "note", note)

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        other = {**BETTER, "other": 1}
        told = (
            candidate(1, 0.4, state=BETTER),
            candidate(2, 0.1, best=False),
            candidate(3, 0.6, state=other),
        )
        async with asyncio.timeout(60):
            for number, event in enumerate(told, 1):
                host.told(event)
                while number not in [candidates for candidates, _ in written]:
                    await asyncio.sleep(0.01)
        return optimized()

    at.optimizers.act = act
    done = await at.take(await at.order())
    assert done.state == "completed"
    assert [number for number, best in written if best] == [1, 3]
    assert 2 in [number for number, best in written if not best]
    assert done.standing.best is not None and done.standing.best.state == {**BETTER, "other": 1}


async def test_what_is_being_written_when_it_ends_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "FLUSH_S", 0.01)
    at = await House().furnish()
    writing = asyncio.Event()
    noted = at.store.note

    async def note(job: Job, standing: Standing, events: Sequence[Event] = (), *, best: bool = True) -> bool:
        if standing.counters.lm_calls:
            writing.set()
            await asyncio.sleep(0.1)
        return await noted(job, standing, events, best=best)

    monkeypatch.setattr(at.store, "note", note)

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete(asked("a"))
        host.printed("stdout", "asked")
        await writing.wait()
        return optimized()

    at.optimizers.act = act
    done = await at.take(await at.order())
    assert (done.state, done.standing.counters.lm_calls) == ("completed", 1)
    events = await at.store.events("default", done.id, after=0, limit=100)
    assert [one.body["text"] for one in events if one.body["event"] == "log"] == ["asked"]


async def test_how_it_ended_is_noted_when_the_database_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "FLUSH_S", 0.01)
    at = await House().furnish()
    refused: list[int] = []
    noted = at.store.note

    async def note(job: Job, standing: Standing, events: Sequence[Event] = (), *, best: bool = True) -> bool:
        if any(one.body["event"] == "result" for one in events) and len(refused) < 3:
            refused.append(len(events))
            raise Unavailable("The database is away.", code="database_unavailable")
        return await noted(job, standing, events, best=best)

    monkeypatch.setattr(at.store, "note", note)
    done = await at.take(await at.order())
    assert (done.state, len(refused)) == ("completed", 3)
    events = await at.store.events("default", done.id, after=0, limit=100)
    assert [one.body["event"] for one in events].count("result") == 1


async def test_what_a_worker_tells_is_taken_within_bounds() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        for event in (
            {},
            {"event": "phase", "phase": "nonsense"},
            {"event": "candidate", "number": "x", "score": float("nan"), "best": True, "state": BETTER},
            {"event": "candidate", "number": -1, "score": True, "best": True, "state": "none"},
            {"event": "candidate", "number": 2, "score": 0.5, "best": True},
            {"event": "log", "text": 7},
            {"event": "log", "text": "x" * 10_000},
            {"event": "iteration", "number": 1, "of": None, "message": 5},
            {"event": "dance"},
        ):
            host.told(event)
        for _ in range(20_000):
            host.printed("stdout", "again and again")
        return optimized()

    at.optimizers.act = act
    made = await at.order()
    done = await at.take(made)
    assert done.state == "completed"
    assert done.standing.best is None
    events = await at.store.events("default", made.id, after=0, limit=10_000)
    assert len(events) <= 5002
    assert events[-1].body["event"] == "result"
    assert max(len(str(one.body.get("text", ""))) for one in events) <= 2000


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
    at.model.outcomes.append(None)

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete(asked("slow"))
        return optimized()

    at.optimizers.act = act
    made = await at.order()
    turn = asyncio.create_task(at.take(made))
    await at.model.waiting.wait()
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
    at.model.outcomes.append(None)

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete(asked("slow"))
        return optimized()

    at.optimizers.act = act
    made = await at.order()
    turn = asyncio.create_task(at.take(made))
    await at.model.waiting.wait()
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


async def test_what_a_pause_wastes_counts_against_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PATIENT_GRACE_S", 0.1)
    at = await House(model_timeout_s=0.1).furnish()
    at.model.outcomes.append(None)

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete(asked("slow"))
        return optimized()

    at.optimizers.act = act
    made = await at.order(budget_usd=1.0)
    turn = asyncio.create_task(at.take(made))
    await at.model.waiting.wait()
    await at.service.pause("default", made.id)
    wasted = (await turn).standing.counters.wasted_usd
    assert wasted > 0
    await at.service.resume("default", made.id)
    done = await at.take(made)
    assert done.result is not None
    assert done.result["cost_usd"] == pytest.approx(wasted + COST)


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
