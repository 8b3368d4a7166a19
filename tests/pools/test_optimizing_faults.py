"""What goes wrong in an optimization ends it alone, with a reason."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psutil
import pytest
import pytest_asyncio
from msgspec.structs import replace

from dspex.executions.errors import ProgramFailed, WorkerDied
from dspex.gateway.errors import LMInvalidRequestError, LMRateLimitError, LMServerError
from dspex.kit.errors import DspexError, Exhausted, Invalid, TimedOut
from dspex.providers.language_models.simulator.teaching import TASKS
from tests.plugins.optimizing import (
    TeachableHost,
    TestedOptimizers,
    open_optimizers,
    program_of,
    rows_of,
)
from tests.plugins.pools import custom

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATES = TASKS["dates"]
PROGRAM = program_of(DATES)
SPENT = Exhausted("the optimization may spend no more", code="optimization_budget")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def optimizers() -> AsyncIterator[TestedOptimizers]:
    async with open_optimizers(memory_mb=512) as opened:
        yield opened


def rows(count: int = 12) -> list[dict[str, Any]]:
    return rows_of(DATES, "training", count)


def metric(name: str, **more: Any) -> dict[str, Any]:
    return {"name": "python", "reference": f"shop.optimized:{name}", **more}


class BlockedHost(TeachableHost):
    """Answers nothing after so many calls."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after
        self.blocked = asyncio.Event()

    async def complete(self, asked: Any) -> Mapping[str, Any]:
        if len(self.asked) >= self._after:
            self.blocked.set()
            await asyncio.Event().wait()
        return await super().complete(asked)


def workers() -> list[psutil.Process]:
    """Forked by nurseries of this process."""
    nurseries = psutil.Process().children()
    return [one for nursery in nurseries for one in nursery.children() if one.status() != "zombie"]


async def test_cancelling_kills_the_worker(optimizers: TestedOptimizers) -> None:
    host = BlockedHost(after=15)
    before = {one.pid for one in workers()}
    running = asyncio.create_task(optimizers.optimize(PROGRAM, "BootstrapFewShot", train=rows(), host=host))
    await asyncio.wait_for(host.blocked.wait(), 60)
    (worker,) = [one for one in workers() if one.pid not in before]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(60):
        while worker.is_running() and worker.status() != "zombie":
            await asyncio.sleep(0.02)


async def test_a_worker_that_is_killed_is_told_of_at_once(optimizers: TestedOptimizers) -> None:
    host = BlockedHost(after=15)
    before = {one.pid for one in workers()}
    running = asyncio.create_task(optimizers.optimize(PROGRAM, "BootstrapFewShot", train=rows(), host=host))
    await asyncio.wait_for(host.blocked.wait(), 60)
    (worker,) = [one for one in workers() if one.pid not in before]
    os.kill(worker.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        with pytest.raises(WorkerDied, match="signal 9"):
            await running


async def test_a_program_that_kills_its_worker_costs_nobody_else(optimizers: TestedOptimizers) -> None:
    dying, well = await asyncio.gather(
        optimizers.optimize(custom("shop.optimized:Dying"), "BootstrapFewShot", train=rows()),
        optimizers.optimize(PROGRAM, "LabeledFewShot", train=rows()),
        return_exceptions=True,
    )
    assert isinstance(dying, WorkerDied)
    assert not isinstance(well, BaseException)


async def test_who_holds_the_interpreter_is_waited_for(optimizers: TestedOptimizers) -> None:
    found = await optimizers.optimize(custom("shop.optimized:Holding"), "LabeledFewShot", train=rows(1))
    assert found.score is not None


async def test_who_holds_it_for_ever_is_ended(
    optimizers: TestedOptimizers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspex.providers.pool.optimizers.BEAT_S", 0.2)
    monkeypatch.setattr("dspex.providers.pool.optimizers.PATIENCE_S", 1.0)
    holding = custom("shop.optimized:Holding", arguments={"seconds": 600})
    async with asyncio.timeout(90):
        with pytest.raises(WorkerDied, match="did not answer for 1 s"):
            await optimizers.optimize(holding, "LabeledFewShot", train=rows(1))


async def test_the_time_limit_ends_what_does_not_end_by_itself(optimizers: TestedOptimizers) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(TimedOut) as late:
            await optimizers.optimize(
                PROGRAM, "BootstrapFewShot", train=rows(), metric=metric("stubborn"), timeout_s=2.0
            )
    assert late.value.code == "optimization_timeout"


async def test_too_much_memory_is_said_to_be_that(optimizers: TestedOptimizers) -> None:
    with pytest.raises(DspexError) as full:
        await optimizers.optimize(custom("shop.optimized:Hungry"), "BootstrapFewShot", train=rows())
    assert full.value.code == "out_of_memory"


async def test_endless_prints_are_cut_off(optimizers: TestedOptimizers) -> None:
    host = TeachableHost()
    await optimizers.optimize(
        custom("shop.optimized:Chatty"), "BootstrapFewShot", train=rows(), host=host, threads=4
    )
    assert sum(len(line) for _, line in host.lines) < 300_000
    assert any("the rest is dropped" in line for _, line in host.lines)


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("raising", "KeyError: 'no such thing'", "metric_failed"),
        ("not_a_number", "not finite", "bad_score"),
        ("text", "returned a str", "bad_score"),
        ("forever", "took more than 0.1 s", "metric_timeout"),
        ("asleep", "took more than 0.1 s", "metric_timeout"),
    ],
)
async def test_a_metric_that_never_scores_ends_it_before_the_optimizer_begins(
    optimizers: TestedOptimizers, name: str, words: str, code: str
) -> None:
    host = TeachableHost()
    with pytest.raises(DspexError, match=words) as failed:
        await optimizers.optimize(
            PROGRAM, "BootstrapFewShot", train=rows(4), metric=metric(name, timeout_s=0.1), host=host
        )
    assert (failed.value.kind, failed.value.code) == ("invalid", code)
    assert [one["phase"] for one in host.of("phase")] == ["baseline"]


async def test_a_metric_that_fails_where_the_program_gets_better_is_told_of(
    optimizers: TestedOptimizers,
) -> None:
    with pytest.raises(ProgramFailed, match="COPRO failed") as failed:
        await optimizers.optimize(
            PROGRAM,
            "COPRO",
            {"breadth": 3, "depth": 1},
            train=rows_of(DATES, "training", 40),
            metric=metric("picky"),
        )
    assert failed.value.code == "optimizer_failed"
    assert "The metric failed before: row training-" in failed.value.message
    assert "too good" in failed.value.message


async def test_an_optimizer_that_refuses_says_so(optimizers: TestedOptimizers) -> None:
    with pytest.raises(ProgramFailed, match="SIMBA failed: AssertionError: Trainset too small") as failed:
        await optimizers.optimize(PROGRAM, "SIMBA", {"bsize": 20}, train=rows())
    assert failed.value.code == "optimizer_failed"


async def test_what_a_state_can_not_say_is_not_taken_for_optimized(optimizers: TestedOptimizers) -> None:
    with pytest.raises(DspexError, match="lacks"):
        await optimizers.optimize(custom("shop.optimized:Forgetful"), "LabeledFewShot", train=rows())


@pytest.mark.parametrize("after", [0, 14])
async def test_a_model_that_fails_for_good_is_the_nodes_own_error(
    optimizers: TestedOptimizers, after: int
) -> None:
    host = TeachableHost()
    host.most, host.refusal = after, LMRateLimitError("slow down", retry_after=7)
    with pytest.raises(LMRateLimitError) as refused:
        await optimizers.optimize(PROGRAM, "COPRO", {"breadth": 2, "depth": 1}, train=rows(), host=host)
    assert refused.value.retry_after == 7


class FailingHost(TeachableHost):
    """Fails what asks about one text, over and over, once the optimizer has begun."""

    def __init__(self, text: str, error: DspexError) -> None:
        super().__init__()
        self._text, self._error = text, error

    async def complete(self, asked: Any) -> Mapping[str, Any]:
        if len(self.of("phase")) > 1 and self._text in str(asked["messages"][-1]):
            raise self._error
        return await super().complete(asked)


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (LMInvalidRequestError("not this text"), {"wrong": 1, "refused": 1, "failed": 0}),
        (LMServerError("down"), {"wrong": 0, "refused": 0, "failed": 1}),
    ],
)
async def test_what_a_model_refuses_is_wrong_and_what_it_fails_on_is_not_known(
    optimizers: TestedOptimizers, error: DspexError, counts: Mapping[str, int]
) -> None:
    validation = rows_of(DATES, "validation", 6)
    host = FailingHost(validation[2]["inputs"]["text"], error)
    found = await optimizers.optimize(
        PROGRAM, "LabeledFewShot", {"k": 4}, train=rows(), validation=validation, host=host
    )
    result = found.details["result"]
    assert {name: result[name] for name in counts} == counts
    assert found.details["compared"] == 6 - counts["failed"]
    assert ("unreliable" in found.details) == bool(counts["failed"])


async def test_no_budget_at_all_is_an_error(optimizers: TestedOptimizers) -> None:
    host = TeachableHost()
    host.most, host.refusal = 5, SPENT
    with pytest.raises(Exhausted) as spent:
        await optimizers.optimize(PROGRAM, "BootstrapFewShot", train=rows(), host=host)
    assert spent.value.code == "optimization_budget"


@pytest.mark.parametrize(
    ("optimizer", "config", "threads"),
    [
        ("BootstrapFewShotWithRandomSearch", {"num_candidate_programs": 8}, 1),
        ("COPRO", {"breadth": 6, "depth": 3}, 4),
        ("MIPROv2", {"num_candidates": 4, "num_trials": 20}, 1),
        ("MIPROv2", {"num_candidates": 4, "num_trials": 20}, 4),
        ("SIMBA", {"bsize": 8, "num_candidates": 3, "max_steps": 8}, 4),
        ("GEPA", {"max_metric_calls": 500}, 4),
        ("InferRules", {"num_candidates": 10, "num_rules": 3}, 1),
    ],
)
async def test_when_the_budget_ends_the_best_so_far_is_kept(
    optimizers: TestedOptimizers, optimizer: str, config: Mapping[str, Any], threads: int
) -> None:
    host = TeachableHost()
    host.most, host.refusal = 160, SPENT
    validation = rows_of(DATES, "validation", 15)
    found = await optimizers.optimize(
        PROGRAM,
        optimizer,
        config,
        train=rows_of(DATES, "training", 24),
        validation=validation,
        host=host,
        threads=threads,
    )
    assert found.details["stopped"] == "budget"
    assert len(host.asked) == 160, "nothing is asked once the node says no"
    (best, *_) = [one for one in reversed(host.of("candidate")) if one["best"]]
    assert found.state == best["state"]
    baseline, optimized = await optimizers.held_out(PROGRAM, found.state, rows_of(DATES, "test", 30))
    assert optimized > baseline


async def test_a_budget_that_ends_while_the_result_is_scored_keeps_the_result(
    optimizers: TestedOptimizers,
) -> None:
    host = TeachableHost()
    host.most, host.refusal = 15, SPENT
    found = await optimizers.optimize(PROGRAM, "LabeledFewShot", train=rows(), host=host)
    assert found.details["stopped"] == "budget"
    assert found.score is None
    assert found.baseline_score is not None
    assert len(found.state["demos"]) == 12


async def test_before_there_is_a_candidate_the_program_stays_as_it_was(
    optimizers: TestedOptimizers,
) -> None:
    host = TeachableHost()
    host.most, host.refusal = 14, SPENT
    found = await optimizers.optimize(PROGRAM, "BootstrapFewShot", train=rows(), host=host)
    assert found.details["stopped"] == "budget"
    assert found.score == found.baseline_score
    assert found.state["demos"] == []


async def test_rows_that_do_not_fit_are_told_by_their_ids(optimizers: TestedOptimizers) -> None:
    bad = [*rows(3), {"id": "odd", "inputs": {"txt": "?"}, "outputs": {"iso_date": "x"}}]
    with pytest.raises(Invalid, match="row odd") as refused:
        await optimizers.optimize(PROGRAM, "LabeledFewShot", train=bad)
    assert refused.value.code == "bad_rows"


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (custom("shop.programs:Typed"), "no dspy.Predict"),
        (custom("shop.faults:Broken"), "construction failed"),
        (custom("shop.programs:Nothing"), "has no 'Nothing'"),
    ],
)
async def test_what_can_not_be_optimized_is_refused_with_the_reason(
    optimizers: TestedOptimizers, module: Any, reason: str
) -> None:
    with pytest.raises(Invalid, match=reason) as refused:
        await optimizers.check(module, "LabeledFewShot")
    assert refused.value.code in ("not_optimizable", "bad_reference")


async def test_what_workers_are_forked_from_ends_when_there_is_no_use_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dspex.providers.pool.optimizers.IDLE_S", 0.1)
    before = {one.pid for one in psutil.Process().children()}
    async with open_optimizers() as opened:
        await opened.check(PROGRAM, "LabeledFewShot")
        async with asyncio.timeout(60):
            while {one.pid for one in psutil.Process().children() if one.status() != "zombie"} - before:
                await asyncio.sleep(0.05)
        await opened.check(PROGRAM, "LabeledFewShot")


async def test_a_check_says_what_will_be_used(optimizers: TestedOptimizers) -> None:
    found = await optimizers.check(PROGRAM, "MIPROv2", {"prompt_model": "other", "max_labeled_demos": 2})
    assert found["predictors"] == ["self"]
    assert found["takes"] == {
        "validation": True,
        "metric": True,
        "candidates": True,
        "fine_tuning": False,
    }
    assert found["config"]["prompt_model"] == "other"
    assert found["config"]["max_labeled_demos"] == 2
    assert found["config"]["auto"] == "light"
    assert (await optimizers.check(PROGRAM, "BetterTogether"))["takes"]["fine_tuning"]


@pytest.mark.parametrize(
    ("optimizer", "config", "problem"),
    [
        ("Magic", {}, None),
        ("COPRO", {"breadth": 1}, ("/config", "refused", "Breadth must be greater than 1")),
        ("COPRO", {"bredth": 4}, ("/config/bredth", "unknown_parameter", "did you mean breadth?")),
        ("Ensemble", {"programs": [{"x": 1}]}, ("/config/programs/0", "refused", "no state of this program")),
    ],
)
async def test_a_check_refuses_with_every_problem(
    optimizers: TestedOptimizers,
    optimizer: str,
    config: Mapping[str, Any],
    problem: tuple[str, str, str] | None,
) -> None:
    with pytest.raises(Invalid) as refused:
        await optimizers.check(PROGRAM, optimizer, config)
    if problem is None:
        assert refused.value.code == "unknown_optimizer"
        return
    assert refused.value.code == "bad_optimizer_config"
    (found,) = refused.value.problems
    assert (found.pointer, found.code) == problem[:2]
    assert problem[2] in found.message


async def test_programs_of_code_that_is_not_on_disk_are_not_optimized(optimizers: TestedOptimizers) -> None:
    changed = replace(custom("shop.programs:Answer"), code="0" * 64)
    with pytest.raises(DspexError) as refused:
        await optimizers.check(changed, "LabeledFewShot")
    assert refused.value.code == "code_changed"
