"""One key, one job, on every store: also when many ask at once, and when the job is no longer kept."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dspex.executions.records import IdempotencyClaim
from dspex.jobs import rules
from dspex.jobs.once import Claim, Once
from dspex.jobs.records import JobFilter
from dspex.kit.errors import Conflict
from dspex.optimizations.records import OptimizationFilter
from tests.contracts.conftest import Stores
from tests.making import NOON, evaluation, job, minutes, optimization

Make = Callable[[Stores, Once], Awaitable[str]]


def once(key: str = "k", digest: str = "d") -> Once:
    return Once(key, lambda: digest)


async def a_batch(stores: Stores, under: Once) -> str:
    return await stores.jobs.add_once(job(evaluation().id), under)


async def an_evaluation(stores: Stores, under: Once) -> str:
    made = evaluation()
    return await stores.evaluations.submit(job(made.id), made, under)


async def an_optimization(stores: Stores, under: Once) -> str:
    made, its_job = optimization()
    return (await stores.optimizations.add(made, its_job, once=under)).id


@pytest.fixture(params=[a_batch, an_evaluation, an_optimization])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


async def jobs(stores: Stores) -> list[str]:
    page = await stores.jobs.list("default", JobFilter(), limit=50, cursor=None)
    return [one.id for one in page.data]


async def test_of_many_at_once_one_is_made(stores: Stores, make: Make) -> None:
    made = await asyncio.gather(*(make(stores, once()) for _ in range(8)))
    assert [*set(made)] == await jobs(stores)
    assert await stores.jobs.claimed("default", "k") == Claim("d", made[0])
    assert await stores.jobs.claimed("other", "k") is None
    assert await make(stores, once("another")) != made[0]


async def test_another_body_is_refused_and_nothing_is_made(stores: Stores, make: Make) -> None:
    first = await make(stores, once())
    with pytest.raises(Conflict) as refused:
        await make(stores, once(digest="other"))
    assert (refused.value.code, await jobs(stores)) == ("idempotency_key_reused", [first])


async def test_a_key_of_a_prediction_makes_no_job(stores: Stores, make: Make) -> None:
    await stores.executions.claim(IdempotencyClaim("default", "k", "p", "e", "n", NOON))
    assert await stores.jobs.claimed("default", "k") is None
    with pytest.raises(Conflict) as refused:
        await make(stores, once())
    assert (refused.value.code, await jobs(stores)) == ("idempotency_key_reused", [])


async def test_a_key_lasts_as_long_as_its_job(stores: Stores, make: Make) -> None:
    first = await make(stores, once())
    assert await stores.executions.prune_claims(older_than=NOON + minutes(99)) == 0
    assert await make(stores, once()) == first
    made = await stores.jobs.get("default", first)
    assert made is not None
    assert await stores.jobs.change(made, rules.cancelled(made, NOON))
    assert await make(stores, once()) == first
    assert await stores.jobs.prune(completed_before=NOON + minutes(1)) == 1
    assert await stores.jobs.claimed("default", "k") is None
    second = await make(stores, once())
    assert second != first and await make(stores, once()) == second
    assert await stores.executions.prune_claims(older_than=NOON + minutes(99)) == 0


async def test_a_claim_without_its_job_is_pruned(stores: Stores) -> None:
    first = await a_batch(stores, once())
    made = await stores.jobs.get("default", first)
    assert made is not None and await stores.jobs.change(made, rules.cancelled(made, NOON))
    await stores.jobs.prune(completed_before=NOON + minutes(1))
    assert await stores.executions.prune_claims(older_than=NOON + minutes(99)) == 1
    # The key is as good as new, also for another body.
    assert await a_batch(stores, once(digest="other")) != first


async def test_a_key_becomes_the_unique_optimization_that_was_there(stores: Stores) -> None:
    there, its_job = optimization()
    await stores.optimizations.add(there, its_job)
    for _ in range(2):
        made, another = optimization()
        found = await stores.optimizations.add(made, another, unique=True, once=once())
        assert found.id == there.id
    assert await stores.jobs.claimed("default", "k") == Claim("d", there.id)
    page = await stores.optimizations.list("default", OptimizationFilter(), limit=9, cursor=None)
    assert [one.id for one in page.data] == [there.id]
