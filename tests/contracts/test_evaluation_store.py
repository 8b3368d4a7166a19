"""What every store of evaluations promises."""

from typing import Any

import pytest
from msgspec.structs import replace

from dspex.configuration.caching import CachePolicy
from dspex.evaluations.metrics.records import MetricSpec
from dspex.evaluations.ports import EvaluationStore
from dspex.evaluations.records import (
    Evaluation,
    EvaluationFilter,
    ExampleFailure,
    ExampleResult,
    Numbers,
    ResultFilter,
)
from dspex.evaluations.rules import as_its_job
from dspex.jobs import rules
from dspex.jobs.records import Completed, Failed, Job, JobError
from dspex.kit.errors import Invalid
from dspex.kit.ids import new_id
from tests.contracts.conftest import Stores
from tests.making import NOON, evaluation, execution, job, minutes

ALL = ResultFilter()
OUCH = JobError("conflict", "dataset_deleted", "it was deleted\x00")
FAILURE = ExampleFailure("metric", "internal", "bad_score", "NaN \ud800")


@pytest.fixture
def store(stores: Stores) -> EvaluationStore:
    return stores.evaluations


async def begun(stores: Stores, **changes: Any) -> tuple[Job, Evaluation]:
    made = evaluation(**changes)
    queued = job(made.id)
    await stores.evaluations.submit(queued, made)
    running = rules.begun(queued, "n", NOON)
    made = as_its_job(made, running)
    assert await stores.evaluations.change(queued, running, made)
    return running, made


def scored(position: int, score: float, **more: Any) -> ExampleResult:
    return ExampleResult(position, f"r{position}", f"e{position}", score, **more)


def failed(position: int) -> ExampleResult:
    return ExampleResult(position, f"r{position}", None, failure=FAILURE, cost_usd=None)


async def test_an_evaluation_comes_back_exactly_and_follows_its_job(
    stores: Stores, store: EvaluationStore
) -> None:
    made = evaluation(
        metric=MetricSpec("python", reference="shop.metrics:accuracy", code="0" * 64, timeout_s=2.0),
        budget_usd=1.5,
        cache=CachePolicy("off"),
        author="k",
        progress={"examples": 3, "scored": 0},
    )
    queued = job(made.id)
    await store.submit(queued, made)
    assert await store.get("default", made.id) == made
    assert await store.get("elsewhere", made.id) is None
    assert await stores.jobs.get("default", made.id) == queued
    running = rules.begun(queued, "n", NOON + minutes(1))
    assert await store.change(queued, running, as_its_job(made, running))
    assert await store.get("default", made.id) == replace(
        made, status="running", started_at=NOON + minutes(1)
    )
    assert not await store.change(queued, running, made), "it is not as it was"
    over = rules.settled(running, Failed(OUCH), NOON + minutes(2))
    assert await store.change(running, over, as_its_job(made, over))
    found = await store.get("default", made.id)
    assert found is not None
    assert (found.status, found.error, found.completed_at) == ("failed", OUCH, NOON + minutes(2))


async def test_evaluations_are_listed_newest_first(stores: Stores, store: EvaluationStore) -> None:
    made = [
        (await begun(stores, created_at=NOON + minutes(number), program="qa" if number % 2 else "other"))[1]
        for number in range(5)
    ]
    first = await store.list("default", EvaluationFilter(), limit=3, cursor=None)
    assert list(first.data) == made[:1:-1]
    rest = await store.list("default", EvaluationFilter(), limit=3, cursor=first.next_cursor)
    assert (list(rest.data), rest.next_cursor) == (made[1::-1], None)
    where = EvaluationFilter("qa", "tickets", "running", made[1].version)
    assert list((await store.list("default", where, limit=9, cursor=None)).data) == [made[3], made[1]]
    others = (
        EvaluationFilter(status="queued"),
        EvaluationFilter(dataset="others"),
        EvaluationFilter(version=9),
    )
    for other in others:
        assert (await store.list("default", other, limit=9, cursor=None)).data == ()
    assert (await store.list("elsewhere", EvaluationFilter(), limit=9, cursor=None)).data == ()
    with pytest.raises(Invalid):
        await store.list("default", EvaluationFilter(), limit=3, cursor="bm9uc2Vuc2U")


async def test_results_come_back_exactly_with_their_progress(stores: Stores, store: EvaluationStore) -> None:
    running, made = await begun(stores)
    whole = scored(
        2,
        0.1 + 0.2,
        fields={"b": 0.0, "a": 1 / 3},
        feedback="shorter\x00",
        outputs={"b": "\ud800", "a": [2**70, None]},
        latency_ms=1.5,
        cost_usd=1e-9,
        metric_cost_usd=1e-10,
        cached=True,
        lm_calls=3,
        tokens=2**40,
    )
    assert await store.settle(running, [failed(3), whole], {"scored": 1})
    assert await store.settle(running, [scored(1, 1.0)], {"scored": 2})
    page = await store.results("default", made.id, ALL, limit=9, cursor=None)
    assert page.data == (scored(1, 1.0), whole, failed(3))
    found, stored = await store.get("default", made.id), await stores.jobs.get("default", made.id)
    assert found is not None and stored is not None
    assert found.progress == stored.progress == {"scored": 2}
    numbers = await store.numbers("default", made.id, after=1, limit=9)
    assert numbers == [
        Numbers(2, 0.1 + 0.2, None, 1.5, 1e-9, 1e-10, True, 3, 2**40),
        Numbers(3, None, ("metric", "bad_score"), None, None, None, False, 0, 0),
    ]
    assert await store.numbers("default", made.id, after=0, limit=1) == [
        Numbers(1, 1.0, None, None, 0.0, None, False, 0, 0)
    ]
    # What is settled again is replaced.
    assert await store.settle(running, [scored(3, 0.5)], {})
    assert len((await store.results("default", made.id, ALL, limit=9, cursor=None)).data) == 3
    assert (await store.results("elsewhere", made.id, ALL, limit=9, cursor=None)).data == ()


async def test_only_who_has_the_evaluation_writes_results(stores: Stores, store: EvaluationStore) -> None:
    first, made = await begun(stores)
    second = rules.begun(first, "m", NOON)
    assert await store.change(first, second, made)
    assert not await store.settle(first, [scored(1, 1.0)], {"scored": 1})
    assert not await store.report(first, {"mean": 1.0})
    assert await store.numbers("default", made.id, after=0, limit=9) == []
    assert await store.report(second, {"mean": 0.5, "interval": None})
    found = await store.get("default", made.id)
    assert found is not None and found.result == {"mean": 0.5, "interval": None}


async def test_results_by_score_and_state_in_pages(stores: Stores, store: EvaluationStore) -> None:
    running, made = await begun(stores)
    scores = [0.5, 0.25, 0.5, 1.0, 0.25]
    results = [scored(at, one) for at, one in enumerate(scores, 1)]
    assert await store.settle(running, [*results, failed(6), failed(7)], {})

    async def positions(where: ResultFilter) -> list[int]:
        found: list[int] = []
        cursor: str | None = None
        while True:
            page = await store.results("default", made.id, where, limit=2, cursor=cursor)
            found += [one.position for one in page.data]
            cursor = page.next_cursor
            if cursor is None:
                return found

    assert await positions(ALL) == [1, 2, 3, 4, 5, 6, 7]
    assert await positions(ResultFilter("failed")) == [6, 7]
    assert await positions(ResultFilter("scored")) == [1, 2, 3, 4, 5]
    assert await positions(ResultFilter(order="score")) == [2, 5, 1, 3, 4]
    page = await store.results("default", made.id, ALL, limit=2, cursor=None)
    with pytest.raises(Invalid):
        await store.results("default", made.id, ResultFilter(order="score"), limit=2, cursor=page.next_cursor)


async def test_what_is_begun_anew_tries_its_failures_again(stores: Stores, store: EvaluationStore) -> None:
    running, made = await begun(stores)
    assert await store.settle(running, [scored(1, 1.0), failed(2)], {})
    over = rules.cancelled(running, NOON)
    assert await store.change(running, over, as_its_job(made, over))
    again = rules.retried(over, NOON)
    assert await store.change(over, again, as_its_job(made, again))
    page = await store.results("default", made.id, ALL, limit=9, cursor=None)
    assert [one.position for one in page.data] == [1]
    found = await store.get("default", made.id)
    assert found is not None
    assert (found.status, found.completed_at, found.error) == ("queued", None, None)


async def test_two_evaluations_side_by_side(stores: Stores, store: EvaluationStore) -> None:
    one, a = await begun(stores)
    other, b = await begun(stores)
    assert await store.settle(one, [scored(1, 1.0), scored(2, 0.5), failed(3), scored(4, 0.0), failed(6)], {})
    assert await store.settle(
        other, [scored(1, 1.0), scored(2, 1.0), scored(3, 1.0), scored(5, 0.0), failed(6)], {}
    )
    pairs = await store.pairs("default", a.id, b.id, changed=False, after=0, limit=9)
    assert [(pair.position, pair.row_id) for pair in pairs] == [(at, f"r{at}") for at in range(1, 7)]
    assert (pairs[1].a, pairs[1].b) == (scored(2, 0.5), scored(2, 1.0))
    assert (pairs[2].a, pairs[3].b, pairs[4].a) == (failed(3), None, None)
    changed = await store.pairs("default", a.id, b.id, changed=True, after=0, limit=9)
    assert [pair.position for pair in changed] == [2, 3, 4, 5]
    assert [
        pair.position for pair in await store.pairs("default", a.id, b.id, changed=True, after=2, limit=2)
    ] == [3, 4]
    assert await store.pairs("elsewhere", a.id, b.id, changed=False, after=0, limit=9) == []


async def test_what_was_executed_is_found_by_its_id(stores: Stores, store: EvaluationStore) -> None:
    made = execution(id=new_id())
    await stores.recorder.record(made)
    assert await store.executed("default", [made.id, new_id()]) == {made.id: made}
    assert await store.executed("elsewhere", [made.id]) == {}


async def test_a_deleted_evaluation_is_gone_with_its_results(stores: Stores, store: EvaluationStore) -> None:
    running, made = await begun(stores)
    other, kept = await begun(stores)
    assert await store.settle(running, [scored(at, 1.0) for at in range(1, 600)], {})
    assert await store.settle(other, [scored(1, 1.0)], {})
    over = rules.settled(running, Completed(), NOON)
    assert await store.change(running, over, as_its_job(made, over))
    await store.delete("default", made.id)
    assert await store.get("default", made.id) is None
    assert await store.numbers("default", made.id, after=0, limit=9) == []
    assert len(await store.numbers("default", kept.id, after=0, limit=9)) == 1
