"""One key, one execution, on every store: also when a cancellation meets the record."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from dspex.configuration.settings import Settings
from dspex.executions.idempotency import Idempotency
from dspex.executions.records import Execution, ExecutionError, ExecutionStatus, IdempotencyClaim
from dspex.jobs.records import Job
from dspex.jobs.service import Jobs
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Conflict, Exhausted, Unavailable
from dspex.kit.signals import LocalSignals
from dspex.storage.opening import open_database
from tests.contracts.conftest import Stores
from tests.contracts.test_recorder import write_lock
from tests.making import execution

Execute = Callable[[str], Awaitable[Execution]]


class Runs:
    """`leave` is raised once the first execution is on record."""

    def __init__(self, stores: Any, status: ExecutionStatus = "completed", leave: Any = None) -> None:
        self._stores, self._status, self._leave = stores, status, leave
        self.ids: list[str] = []

    async def __call__(self, execution_id: str) -> Execution:
        self.ids.append(execution_id)
        done = execution(id=execution_id, status=self._status if len(self.ids) == 1 else "completed")
        await self._stores.recorder.record(done)
        if self._leave is not None and len(self.ids) == 1:
            raise self._leave
        return done


class Submits:
    """Takes executions to be run in the background; `leave` is raised once the first one is stored with its job."""

    def __init__(self, stores: Stores, leave: BaseException) -> None:
        self._stores, self._leave = stores, leave
        self.ids: list[str] = []

    async def __call__(self, execution_id: str) -> Execution:
        self.ids.append(execution_id)
        pending = execution(id=execution_id, status="pending", node="")
        await self._stores.background.submit(job_of(pending), pending)
        if len(self.ids) == 1:
            raise self._leave
        return pending


def job_of(pending: Execution) -> Job:
    at = pending.created_at
    return Job(pending.id, pending.project, "execution", "llm_calls", at, at, {})


def idempotency(stores: Any) -> Idempotency:
    hour = timedelta(hours=1)
    clock = SystemClock()
    jobs = Jobs(stores.jobs, LocalSignals(), clock, {})
    return Idempotency(
        stores.executions, stores.nodes, clock, "n", dead_after=hour, in_background=jobs.is_open
    )


@pytest.mark.parametrize("leave", [asyncio.CancelledError(), Unavailable("away", code="x")], ids=repr)
@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_what_is_on_record_is_not_run_again(
    stores: Stores, status: ExecutionStatus, leave: BaseException
) -> None:
    keys, runs = idempotency(stores), Runs(stores, status, leave)
    with pytest.raises(type(leave)):
        await keys.run("default", "k", "d", runs, timeout_s=60)
    answer, replayed = await keys.run("default", "k", "d", runs, timeout_s=60)
    assert replayed and [answer.id] == runs.ids


@pytest.mark.parametrize("leave", [asyncio.CancelledError(), Unavailable("away", code="x")], ids=repr)
async def test_what_waits_in_the_background_is_not_submitted_again(
    stores: Stores, leave: BaseException
) -> None:
    keys, submits = idempotency(stores), Submits(stores, leave)
    with pytest.raises(type(leave)):
        await keys.run("default", "k", "d", submits, timeout_s=60)
    answer, replayed = await keys.run("default", "k", "d", submits, timeout_s=60)
    assert replayed and [answer.id] == submits.ids


async def test_what_was_submitted_and_cancelled_since_frees_the_key(stores: Stores) -> None:
    keys, submits = idempotency(stores), Submits(stores, Unavailable("away", code="x"))

    async def submit_and_cancel(execution_id: str) -> Execution:
        try:
            return await submits(execution_id)
        finally:
            await stores.recorder.record(execution(id=execution_id, status="cancelled"))

    with pytest.raises(Unavailable):
        await keys.run("default", "k", "d", submit_and_cancel, timeout_s=60)
    _, replayed = await keys.run("default", "k", "another body", submits, timeout_s=60)
    assert not replayed


async def test_what_another_node_has_on_record_as_running_is_not_run_again(stores: Stores) -> None:
    now = SystemClock().now()
    await stores.nodes.beat("other", now)
    claim = IdempotencyClaim("default", "k", "d", "e1", "other", now)
    assert await stores.executions.claim(claim) == claim
    await stores.recorder.record(execution(id="e1", status="running", node="other"))
    keys, runs = idempotency(stores), Runs(stores)
    with pytest.raises(Conflict) as refused:
        await keys.run("default", "k", "d", runs, timeout_s=60)
    assert (refused.value.code, runs.ids) == ("idempotency_in_progress", [])
    await stores.recorder.record(execution(id="e1", node="other"))
    answer, replayed = await keys.run("default", "k", "d", runs, timeout_s=60)
    assert (answer.id, replayed, runs.ids) == ("e1", True, [])


async def test_a_recorded_cancellation_frees_the_key(stores: Stores) -> None:
    keys, runs = idempotency(stores), Runs(stores, "cancelled", asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await keys.run("default", "k", "d", runs, timeout_s=60)
    _, replayed = await keys.run("default", "k", "another body", runs, timeout_s=60)
    assert not replayed and len(set(runs.ids)) == 2


async def test_while_the_store_is_silent_the_claim_stays(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, runs = idempotency(stores), Runs(stores, "completed", asyncio.CancelledError())

    async def silent(project: str, execution_id: str) -> None:
        raise Unavailable("The database is away.", code="database_unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(stores.executions, "get", silent)
        with pytest.raises(asyncio.CancelledError):
            await keys.run("default", "k", "d", runs, timeout_s=60)
    assert (await keys.run("default", "k", "d", runs, timeout_s=60))[1]
    assert len(runs.ids) == 1


@pytest.mark.parametrize("cancellations", [1, 3])
async def test_a_cancellation_while_the_record_is_committed(sqlite_url: str, cancellations: int) -> None:
    async with open_database(Settings(database_url=sqlite_url)) as database:
        keys, runs = idempotency(database), Runs(database)
        ready, locked = asyncio.Event(), asyncio.Event()

        async def execute(execution_id: str) -> Execution:
            ready.set()
            await locked.wait()
            return await runs(execution_id)

        task = asyncio.create_task(keys.run("default", "k", "d", execute, timeout_s=60))
        await ready.wait()
        async with write_lock(sqlite_url):
            locked.set()
            while not runs.ids:
                await asyncio.sleep(0)
            for _ in range(cancellations):
                task.cancel()
                await asyncio.sleep(0)
            assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        answer, replayed = await keys.run("default", "k", "d", runs, timeout_s=60)
        assert replayed and [answer.id] == runs.ids


async def test_a_cancelled_caller_hears_of_it_after_the_commit(database_url: str) -> None:
    async with open_database(Settings(database_url=database_url)) as database:
        # Cancelled after each number of steps that the loop can take before the record is acknowledged.
        for steps in range(30):
            one = execution()
            task = asyncio.create_task(database.recorder.record(one))
            for _ in range(steps):
                await asyncio.sleep(0)
            cancelled = task.cancel()
            await asyncio.wait([task], timeout=10)
            assert task.done()
            if steps or not cancelled:
                assert await database.executions.get("default", one.id) == one


async def test_who_submits_and_is_cancelled_hears_of_it_after_the_commit(database_url: str) -> None:
    async with open_database(Settings(database_url=database_url)) as database:
        first = execution(status="pending", node="")
        # The stores behind it are made for the first one.
        await database.background.submit(job_of(first), first)
        for steps in range(1, 30):
            one = execution(status="pending", node="")
            task = asyncio.create_task(database.background.submit(job_of(one), one))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=10)
            assert task.done()
            assert await database.executions.get("default", one.id) is not None


async def test_those_who_wait_get_the_answer_that_they_waited_for(stores: Stores) -> None:
    keys, gate, runs = idempotency(stores), asyncio.Event(), []

    async def execute(execution_id: str) -> Execution:
        runs.append(execution_id)
        await gate.wait()
        # Not recorded yet when it is acknowledged: as with relaxed durability.
        return execution(id=execution_id)

    asked = [asyncio.create_task(keys.run("default", "k", "d", execute, timeout_s=60)) for _ in range(20)]
    while not runs:
        await asyncio.sleep(0)
    gate.set()
    answers = await asyncio.gather(*asked)
    assert {one.id for one, _ in answers} == set(runs)
    assert [replayed for _, replayed in answers].count(False) == 1


async def test_not_more_wait_than_a_node_can_hold(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.executions.idempotency.MOST_WAITING", 2)
    keys, gate = idempotency(stores), asyncio.Event()

    async def execute(execution_id: str) -> Execution:
        await gate.wait()
        return execution(id=execution_id)

    asked = [asyncio.create_task(keys.run("default", "k", "d", execute, timeout_s=60)) for _ in range(4)]
    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    (refused,) = done
    with pytest.raises(Exhausted) as error:
        refused.result()
    assert (error.value.code, error.value.retry_after) == ("too_many_waiting", 1)
    gate.set()
    await asyncio.gather(*(task for task in asked if task is not refused))


@pytest.mark.parametrize(
    ("kind", "calls", "again"),
    [
        ("unavailable", (), True),
        ("exhausted", ({"error": {"code": "lm_rate_limited"}},), True),
        ("unavailable", ({"error": None}, {"error": {"code": "lm_unreachable"}}), False),
        ("timeout", (), False),
        ("invalid", (), False),
    ],
)
async def test_what_was_only_turned_away_is_tried_again(
    stores: Stores, kind: str, calls: tuple[Any, ...], again: bool
) -> None:
    keys, runs = idempotency(stores), []

    async def execute(execution_id: str) -> Execution:
        runs.append(execution_id)
        error = ExecutionError(kind, "breaker_open", "BreakerOpen", "Try again in 4 s.", 4)
        done = execution(id=execution_id, status="failed", error=error, calls=calls)
        await stores.recorder.record(done)
        return done

    await keys.run("default", "k", "d", execute, timeout_s=60)
    _, replayed = await keys.run("default", "k", "d", execute, timeout_s=60)
    assert (len(runs), replayed) == ((2, False) if again else (1, True))
