"""What a worker makes of evaluations, over memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from dspex.evaluations import examples
from dspex.evaluations.budget import Cap
from dspex.evaluations.examples import Keeping
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import Score
from dspex.evaluations.models import Models
from dspex.evaluations.records import Evaluation
from dspex.evaluations.rules import execution_id_of, is_final
from dspex.evaluations.scoring import Answered, Scorer, Scoring
from dspex.executions.facts import ExecutionFinished
from dspex.executions.ports import Keeper
from dspex.executions.records import ExecutionError
from dspex.jobs import rules as job_rules
from dspex.kit.errors import Exhausted, Unavailable
from dspex.kit.ids import is_id, new_id
from tests.interfaces.node import TestNode
from tests.making import NOON, execution
from tests.unit.evaluations.working import House, Parts, Saying, prepared, right, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "BACKOFF_S", 0.001)


@pytest.fixture
async def at() -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    house = House()
    async with house.node.client() as client:
        yield house, client


async def test_every_example_gets_its_score(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client)
    evaluation_id = await house.ask(client)
    ended = await house.take(evaluation_id)
    assert (ended.status, ended.error) == ("completed", None)
    report = ended.result or {}
    assert (report["scored"], report["failed"], report["not_run"], report["stopped"]) == (10, 0, 0, None)
    assert report["mean"] == 0.7
    assert report["interval"]["method"] == "wilson"
    assert (report["cost_usd"], report["lm_calls"]) == (0.0, 0)
    found = await house.results(evaluation_id)
    assert [one.position for one in found] == list(range(1, 11))
    assert [one.score for one in found] == [0.0 if number % 3 == 0 else 1.0 for number in range(1, 11)]
    assert found[2].fields == {"answer": 0.0} and found[2].outputs == {"answer": "yes"}
    one = (await client.get(f"/v1/executions/{found[2].execution_id}")).json()
    assert one["metadata"] == {"evaluation": evaluation_id, "position": 3}
    assert (one["program"], one["inputs"]) == ("qa", {"question": "3?"})
    job = await house.job(evaluation_id)
    assert (job.state, job.result and job.result["mean"]) == ("completed", 0.7)


async def test_failures_are_kept_apart_from_low_scores(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    runs: list[str] = []
    house.node.facts.subscribe(ExecutionFinished, lambda fact: runs.append(fact.execution.inputs["question"]))
    rules = [
        {"when": {"question": "1?"}, "fault": {"kind": "unavailable"}},
        {"when": {"question": "2?"}, "fault": {"kind": "internal"}},
    ]
    await prepared(client, 4, rules=rules)
    odd = {"inputs": {"question": 5}, "outputs": {"answer": "yes"}}
    unlabelled = {"inputs": {"question": "6?"}}
    rows = (await client.get("/v1/datasets/rows/rows")).json()["data"]
    given = [{"inputs": row["inputs"], "outputs": row["outputs"]} for row in rows]
    body = {"name": "rows", "rows": [*given, odd, unlabelled]}
    assert (await client.post("/v1/datasets", json=body)).status_code == 201
    evaluation_id = await house.ask(client)
    ended = await house.take(evaluation_id)
    report = ended.result or {}
    assert (ended.status, report["scored"], report["failed"], report["mean"]) == ("completed", 2, 4, 0.5)
    assert {(one["origin"], one["code"]) for one in report["failures"]} == {
        ("infrastructure", "scripted_fault"),
        ("data", "invalid_inputs"),
        ("metric", "not_labelled"),
    }
    found = await house.results(evaluation_id)
    assert [one.state for one in found] == ["failed", "failed", "scored", "scored", "failed", "failed"]
    assert all(one.score is None for one in found if one.failure)
    assert found[4].execution_id is None and "/inputs/question" in (
        found[4].failure.message if found[4].failure else ""
    )
    # What may pass was tried three times, a defect once.
    assert (runs.count("1?"), runs.count("2?"), runs.count("3?")) == (3, 1, 1)


async def test_a_fault_that_passes_costs_no_example(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 3)
    tries: dict[str, int] = {}

    async def unsteady(answered: Answered) -> Scoring:
        tries[answered.execution_id] = tries.get(answered.execution_id, 0) + 1
        if tries[answered.execution_id] < 3:
            return Scoring(None, ExecutionError("unavailable", "lm_server_error", "E", "500"), cost_usd=0.5)
        return Scoring(Score(0.25), cost_usd=0.5, lm_calls=1, tokens=7)

    house.parts = Parts(unsteady)
    evaluation_id = await house.ask(client)
    ended = await house.take(evaluation_id, house.another("me"))
    report = ended.result or {}
    assert (report["scored"], report["mean"]) == (3, 0.25)
    # What was tried in vain has been paid as well.
    assert (report["cost_usd"], report["lm_calls"], report["tokens"]) == (4.5, 3, 21)


async def test_a_metric_that_says_nothing_is_a_failure_of_its_own(
    at: tuple[House, httpx.AsyncClient],
) -> None:
    house, client = at
    await prepared(client, 2)

    async def silent(answered: Answered) -> Scoring:
        return Scoring(None, failed=MetricFailed("NaN", code="bad_score"), cost_usd=0.5)

    house.parts = Parts(silent)
    ended = await house.take(await house.ask(client), house.another("me"))
    report = ended.result or {}
    assert (report["scored"], report["mean"], report["interval"], report["cost_usd"]) == (0, None, None, 1.0)
    assert report["failures"] == [{"origin": "metric", "code": "bad_score", "examples": 2}]


async def test_what_is_scored_is_not_run_again(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 40)
    scored: list[str] = []
    enough = asyncio.Event()

    async def some(answered: Answered) -> Scoring:
        scored.append(answered.execution_id)
        if len(scored) > 20 and not enough.is_set():
            await asyncio.Event().wait()
        return Scoring(Score(1.0))

    house.parts = Parts(some)
    evaluation_id = await house.ask(client, concurrency=4)
    first = house.another("first")
    taking = asyncio.create_task(first.take("default", evaluation_id, 0))
    await until(lambda: len(scored) >= 24)
    await first.stop(0.0)
    await taking
    left = await house.now(evaluation_id)
    assert left.status == "queued"
    assert len(await house.results(evaluation_id)) == 20
    enough.set()
    before = len(scored)
    ended = await house.take(evaluation_id, house.another("second"))
    assert ended.status == "completed"
    assert (ended.result or {})["scored"] == 40
    assert len(scored) - before == 20
    assert (await house.job(evaluation_id)).attempts == 1, "a worker that stops uses up no attempt"


async def test_what_a_killed_worker_had_run_is_not_paid_again(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 5)
    evaluation_id = await house.ask(client)
    # As a worker that was killed leaves it: begun, with executions that it wrote no results of.
    job = await house.job(evaluation_id)
    begun = job_rules.begun(job, "killed", NOON)
    assert await house.node.job_store.change(job, begun)
    for position, changes in (
        (1, {"outputs": {"answer": "yes"}, "cost_usd": 0.25}),
        (2, {"status": "failed", "error": ExecutionError("unavailable", "lm_server_error", "E", "500")}),
        (3, {"status": "failed", "error": ExecutionError("unavailable", "unusable_reply", "E", "no")}),
    ):
        ran = execution(id=execution_id_of(evaluation_id, position), **changes)
        await house.node.executions.record(ran)
    runs: list[Any] = []
    house.node.facts.subscribe(ExecutionFinished, lambda fact: runs.append(fact.execution.id))
    ended = await house.take(evaluation_id)
    assert ended.status == "completed"
    found = await house.results(evaluation_id)
    assert runs == [execution_id_of(evaluation_id, position) for position in (2, 4, 5)]
    assert (found[0].score, found[0].cost_usd) == (1.0, 0.25)
    assert found[2].failure is not None and found[2].failure.origin == "program"


class Paying(Parts):
    """Each example makes one call, of what `price` says when it is made, as the gateway lets it be made."""

    def __init__(self, price: Callable[[Answered], float]) -> None:
        super().__init__(right)
        self.price = price
        self.paid = 0.0
        self.running = self.most = 0

    async def scorer(self, evaluation: Evaluation, keeper: Keeper) -> Scorer:
        cap = keeper.cap
        assert cap is not None

        async def say(answered: Answered) -> Scoring:
            cost = self.price(answered)
            try:
                await cap.reserve(cost)
            except Exhausted as error:
                return Scoring(None, ExecutionError("exhausted", error.code, "Exhausted", error.message))
            self.paid += cost
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0)
            self.running -= 1
            await cap.settle(cost, cost)
            return Scoring(Score(1.0), cost_usd=cost, lm_calls=1)

        return Saying(say)


async def test_no_call_is_made_that_could_pass_the_budget(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 50)
    house.parts = parts = Paying(lambda _: 0.1)
    evaluation_id = await house.ask(client, budget_usd=1.05, concurrency=8)
    ended = await house.take(evaluation_id, house.another("me"))
    report = ended.result or {}
    assert (ended.status, report["stopped"]) == ("completed", "budget")
    assert (report["scored"], report["not_run"], report["cost_usd"]) == (10, 40, 1.0)
    assert parts.most > 1


@pytest.mark.parametrize("dear", [0.03, 0.08])
async def test_one_dear_example_ends_nothing_where_the_budget_is_enough_for_all(
    at: tuple[House, httpx.AsyncClient], dear: float
) -> None:
    house, client = at
    await prepared(client, 60)
    house.parts = Paying(lambda answered: dear if answered.inputs["question"] == "1?" else 0.0001)
    ended = await house.take(await house.ask(client, budget_usd=0.1, concurrency=16), house.another("me"))
    report = ended.result or {}
    assert (ended.status, report["stopped"], report["scored"]) == ("completed", None, 60)


async def test_one_dear_example_among_many_never_passes_the_budget(
    at: tuple[House, httpx.AsyncClient],
) -> None:
    house, client = at
    await prepared(client, 60)
    house.parts = parts = Paying(lambda answered: 0.5 if answered.inputs["question"] == "1?" else 0.05)
    ended = await house.take(await house.ask(client, budget_usd=1.02, concurrency=16), house.another("me"))
    report = ended.result or {}
    assert (ended.status, report["stopped"], report["scored"]) == ("completed", "budget", 11)
    assert parts.paid == pytest.approx(1.0)


async def test_the_first_example_tells_what_one_costs(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 50)

    async def dear(answered: Answered) -> Scoring:
        await asyncio.sleep(0.01)
        return Scoring(Score(1.0), cost_usd=3.0)

    house.parts = Parts(dear)
    ended = await house.take(await house.ask(client, budget_usd=0.5), house.another("me"))
    report = ended.result or {}
    assert (report["stopped"], report["scored"], report["cost_usd"]) == ("budget", 1, 3.0)


async def test_kept_answers_tell_nothing_of_what_one_costs(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 50)
    running = most = asked = 0

    async def say(answered: Answered) -> Scoring:
        nonlocal running, most, asked
        asked += 1
        kept = asked <= 5
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return Scoring(Score(1.0), cost_usd=0.0 if kept else 1.0, lm_calls=0 if kept else 1)

    house.parts = Parts(say)
    ended = await house.take(await house.ask(client, budget_usd=3.0, concurrency=16), house.another("me"))
    report = ended.result or {}
    assert (report["stopped"], report["scored"], report["cost_usd"]) == ("budget", 8, 3.0)
    assert most <= 3


async def test_calls_are_set_aside_for_so_that_the_dearest_one_fits_as_well(
    at: tuple[House, httpx.AsyncClient],
) -> None:
    house, client = at
    await prepared(client, 50)
    # Each example is dearer than all before it: none tells what the next one costs.
    house.parts = parts = Paying(lambda _: 0.1 * (round(parts.paid * 10) + 1))
    ended = await house.take(await house.ask(client, budget_usd=1.2, concurrency=4), house.another("me"))
    report = ended.result or {}
    # 0.1, 0.2 and 0.4: after these the dearest so far fits into the budget, and the next one does not.
    assert (ended.status, report["stopped"], report["scored"]) == ("completed", "budget", 3)
    assert parts.paid == pytest.approx(0.7)


async def test_the_keys_own_budget_ends_it_as_well(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 5)

    async def spent(answered: Answered) -> Scoring:
        return Scoring(None, ExecutionError("exhausted", "budget_exhausted", "E", "spent"))

    house.parts = Parts(spent)
    ended = await house.take(await house.ask(client), house.another("me"))
    report = ended.result or {}
    assert (ended.status, report["stopped"], report["scored"], report["failed"]) == (
        "completed",
        "budget",
        0,
        0,
    )


async def test_a_long_rate_limit_is_waited_for_by_the_whole_job(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 6)
    limited = True

    async def say(answered: Answered) -> Scoring:
        if limited and answered.inputs["question"] in ("3?", "4?"):
            return Scoring(None, ExecutionError("exhausted", "lm_rate_limited", "E", "slowly", 45.0))
        return Scoring(Score(1.0))

    house.parts = Parts(say)
    evaluation_id = await house.ask(client, concurrency=2)
    worker = house.another("me")
    waiting = await house.take(evaluation_id, worker)
    job = await house.job(evaluation_id)
    assert (waiting.status, waiting.error, job.state) == ("queued", job.error, "queued")
    assert job.error is not None and job.error.code == "lm_rate_limited"
    assert (job.attempts, (job.due_at - job.created_at).total_seconds() > 40) == (0, True)
    # What is scored so far can be seen meanwhile.
    assert (waiting.result or {})["scored"] == (waiting.progress or {})["scored"] == 2
    limited = False
    ended = await house.take(evaluation_id, worker)
    assert (ended.status, (ended.result or {})["scored"]) == ("completed", 6)


async def test_cancelling_ends_it_and_keeps_what_is_scored(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 20)
    scored: list[str] = []

    async def stuck(answered: Answered) -> Scoring:
        scored.append(answered.execution_id)
        if len(scored) > 5:
            await asyncio.Event().wait()
        return Scoring(Score(0.5))

    house.parts = Parts(stuck)
    evaluation_id = await house.ask(client, concurrency=2)
    taking = asyncio.create_task(house.take(evaluation_id, house.another("me")))
    await until(lambda: len(scored) >= 7)
    answer = await client.post(f"/v1/evaluations/{evaluation_id}/cancel", json={})
    assert answer.status_code == 202
    async with asyncio.timeout(60):
        ended = await taking
    report = ended.result or {}
    assert (ended.status, ended.error and ended.error.code) == ("cancelled", "cancelled")
    assert (report["scored"], report["not_run"], report["stopped"]) == (5, 15, "cancelled")
    again = await client.post(f"/v1/evaluations/{evaluation_id}/cancel", json={})
    assert again.json()["code"] == "job_state"


async def test_cancelling_again_loses_nothing(
    at: tuple[House, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    house, client = at
    await prepared(client, 20)
    scored: list[str] = []
    writing, let = asyncio.Event(), asyncio.Event()
    settle = house.node.evaluations.settle

    async def stuck(answered: Answered) -> Scoring:
        scored.append(answered.execution_id)
        if len(scored) > 5:
            await asyncio.Event().wait()
        return Scoring(Score(0.5))

    async def slowly(*given: Any) -> Any:
        writing.set()
        await let.wait()
        return await settle(*given)

    monkeypatch.setattr(house.node.evaluations, "settle", slowly)
    house.parts = Parts(stuck)
    evaluation_id = await house.ask(client, concurrency=2)
    worker = house.another("me")
    taking = asyncio.create_task(house.take(evaluation_id, worker))
    await until(lambda: len(scored) >= 7)
    await writing.wait()
    for _ in range(3):
        answer = await client.post(f"/v1/evaluations/{evaluation_id}/cancel", json={})
        assert answer.status_code == 202
        await worker.look_after()
        await asyncio.sleep(0.01)
    let.set()
    ended = await taking
    assert ended.status == "cancelled"
    assert len(await house.results(evaluation_id)) == 5
    assert ended.result is not None
    assert (ended.result["scored"], ended.result["stopped"]) == (5, "cancelled")


async def test_a_dataset_that_is_deleted_meanwhile_ends_it(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 3)
    evaluation_id = await house.ask(client)
    await client.delete("/v1/datasets/rows")
    ended = await house.take(evaluation_id)
    assert (ended.status, ended.error and ended.error.code) == ("failed", "dataset_deleted")
    assert (ended.result or {})["stopped"] == "failed"


async def test_rows_that_go_while_it_runs_end_it_and_what_is_scored_stays(
    at: tuple[House, httpx.AsyncClient],
) -> None:
    house, client = at
    await prepared(client, 450)
    deleted = False

    async def deleting(answered: Answered) -> Scoring:
        nonlocal deleted
        if not deleted:
            deleted = True
            await client.delete("/v1/datasets/rows")
        return Scoring(Score(1.0))

    house.parts = Parts(deleting)
    evaluation_id = await house.ask(client, concurrency=1)
    ended = await house.take(evaluation_id, house.another("me"))
    assert (ended.status, ended.error and ended.error.code) == ("failed", "dataset_deleted")
    assert 0 < (ended.result or {})["scored"] <= 450


async def test_a_database_that_goes_away_is_waited_for(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 30)
    asked = 0

    async def say(answered: Answered) -> Scoring:
        nonlocal asked
        asked += 1
        if asked == 10:
            house.node.switch.away = True
            asyncio.get_running_loop().call_later(0.5, setattr, house.node.switch, "away", False)
        if house.node.switch.away:
            raise Unavailable("The database does not answer.", code="database_unavailable", retry_after=0.2)
        return Scoring(Score(1.0))

    house.parts = Parts(say)
    ended = await house.take(await house.ask(client, concurrency=4), house.another("me"))
    report = ended.result or {}
    assert (ended.status, report["scored"], report["failed"]) == ("completed", 30, 0)


async def test_a_limit_runs_the_first_rows_alone(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 10)
    evaluation_id = await house.ask(client, limit=4)
    ended = await house.take(evaluation_id)
    assert (ended.examples, (ended.result or {})["scored"]) == (4, 4)
    assert [one.position for one in await house.results(evaluation_id)] == [1, 2, 3, 4]


async def test_an_archived_program_ends_it(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 3)
    evaluation_id = await house.ask(client)
    await client.post("/v1/programs/qa/archive", json={})
    ended = await house.take(evaluation_id)
    assert (ended.status, ended.error and ended.error.code) == ("failed", "not_executable")


async def test_a_failed_one_that_is_retried_runs_what_is_open(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 4)
    broken = True

    async def say(answered: Answered) -> Scoring:
        if broken and answered.inputs["question"] == "2?":
            return Scoring(None, ExecutionError("unavailable", "lm_server_error", "E", "500"))
        if broken and answered.inputs["question"] == "4?":
            raise RuntimeError("a defect")
        return await right(answered)

    house.parts = Parts(say)
    evaluation_id = await house.ask(client, concurrency=1)
    worker = house.another("me")
    ended = await house.take(evaluation_id, worker)
    assert (ended.status, (ended.result or {})["failed"]) == ("failed", 1)
    broken = False
    await house.node.services.jobs.retry("default", evaluation_id)
    assert (await house.now(evaluation_id)).status == "queued"
    ended = await house.take(evaluation_id, worker)
    assert (ended.status, (ended.result or {})["scored"], ended.error) == ("completed", 4, None)


async def test_an_evaluation_that_was_lost_ends_its_worker(at: tuple[House, httpx.AsyncClient]) -> None:
    house, client = at
    await prepared(client, 4)
    begun = asyncio.Event()

    async def stuck(answered: Answered) -> Scoring:
        begun.set()
        await asyncio.Event().wait()
        return Scoring(Score(1.0))

    house.parts = Parts(stuck)
    evaluation_id = await house.ask(client)
    worker = house.another("me")
    taking = asyncio.create_task(house.take(evaluation_id, worker))
    await begun.wait()
    job = await house.job(evaluation_id)
    assert await house.node.job_store.change(job, replace(job, node="other", attempts=2))
    await worker.look_after()
    async with asyncio.timeout(60):
        left = await taking
    assert left.status == "running"
    assert await house.results(evaluation_id) == []
    with contextlib.suppress(Exception):
        await worker.stop(0.0)


def test_executions_of_examples_have_ids_of_their_own() -> None:
    one, other = new_id(), new_id()
    ids = {execution_id_of(evaluation, position) for evaluation in (one, other) for position in range(1, 500)}
    assert len(ids) == 998
    assert all(is_id(made) and made[14] == "7" and made[19] in "89ab" for made in ids)
    assert execution_id_of(one, 1)[:13] == one[:13]
    assert execution_id_of(one, 1) == execution_id_of(one, 1)


@pytest.mark.parametrize(("calls", "recorded"), [((), []), (({"cache": "hit"},), ["cancelled"])])
async def test_what_the_budget_cuts_short_is_no_failure_of_the_program(
    calls: tuple[Any, ...], recorded: list[str]
) -> None:
    node = TestNode()
    run: Any = None
    keeping = Keeping(node.executions, run, Cap(1.0, 0.0), Models({}, {}))
    error = ExecutionError("exhausted", "evaluation_budget", "Exhausted", "used up")
    cut = execution(id="e", status="failed", outputs=None, error=error, calls=calls)
    kept = await keeping.keep(cut)
    assert [one.status for one in (kept,) if one is not None] == recorded
    found = await node.executions.get("default", "e")
    assert [one.status for one in (found,) if one is not None] == recorded
    # Whoever goes on with the evaluation does not ask again, and counts what was paid.
    assert kept is None or is_final(kept)
