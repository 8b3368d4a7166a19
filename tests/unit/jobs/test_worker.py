"""What a worker makes of jobs, over memory, with an engine that is told what to do."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.jobs import rules, sweeping
from dspex.jobs.lease import Lease
from dspex.jobs.ports import Known, Run
from dspex.jobs.records import Again, Completed, Failed, Job, JobError, Outcome
from dspex.jobs.service import Jobs
from dspex.jobs.sweeping import Sweeper
from dspex.jobs.worker import Worker
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Conflict, Exhausted, Invalid, Missing, Unavailable
from dspex.kit.facts import Facts
from dspex.kit.signals import LocalSignals
from dspex.providers.memory.jobs import MemoryJobs
from tests.making import NOON

OUCH = JobError("unavailable", "ouch", "it hurt")
Do = Callable[[Run], Awaitable[Outcome]]


class Acting:
    """A handler that does what the test says."""

    def __init__(self, do: Do) -> None:
        self.run = do


@dataclass
class Engine:
    """A `jobs.ports.JobEngine` that remembers."""

    enqueued: list[tuple[str, int]] = field(default_factory=list)
    owned: dict[str, list[str]] = field(default_factory=dict)
    states: dict[str, Known] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)

    async def enqueue(self, job: Job) -> None:
        self.enqueued.append((job.id, job.turn))

    async def known(self, job: Job) -> Known:
        return self.states.get(job.id, "unknown")

    async def owners(self) -> Sequence[str]:
        return sorted(self.owned)

    async def take_from(self, nodes: Sequence[str]) -> None:
        self.taken += nodes

    async def prune(self, *, completed_before: datetime) -> int:
        return 0


async def nothing() -> None:
    """A heartbeat that always succeeds."""


@dataclass
class House:
    """A store and a worker on it."""

    store: MemoryJobs
    worker: Worker
    jobs: Jobs

    async def job(self, job_id: str = "1", **changes: Any) -> Job:
        await self.store.add(job(job_id, **changes))
        return await self.now(job_id)

    async def now(self, job_id: str = "1") -> Job:
        return await self.jobs.get("p", job_id)

    async def take(self, job_id: str = "1") -> Job:
        """One turn of the job, to its end."""
        await self.worker.take("p", job_id, (await self.now(job_id)).turn)
        return await self.now(job_id)


def job(job_id: str = "1", **changes: Any) -> Job:
    given = Job(job_id, "p", "test", "default", NOON, NOON, {})
    return replace(given, **changes)


def house(do: Do, store: MemoryJobs | None = None) -> House:
    store = store or MemoryJobs()
    clock, signals = SystemClock(), LocalSignals()
    lease = Lease(nothing, clock)
    worker = Worker(store, {}, {"test": Acting(do)}, lease, clock, Facts(), "me")
    lease.look_after = worker.look_after
    signals.on("jobs.cancelled", lambda payload: worker.cancel(payload["project"], payload["id"]))
    return House(store, worker, Jobs(store, signals, clock, {}))


async def done(run: Run) -> Outcome:
    return Completed({"answer": 42})


async def test_a_job_is_begun_and_completed() -> None:
    seen: list[Job] = []

    async def do(run: Run) -> Outcome:
        seen.append(run.job)
        return Completed({"answer": 42})

    at = house(do)
    await at.job()
    ended = await at.take()
    assert (seen[0].state, seen[0].node, seen[0].attempts) == ("running", "me", 1)
    assert (ended.state, ended.result, ended.error) == ("completed", {"answer": 42}, None)
    # The engine may hand out a turn twice; it is done once.
    await at.take()
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("raised", "state", "attempts"),
    [
        (Invalid("no"), "failed", 1),
        (Unavailable("later"), "queued", 1),
        # Ours, for which no job is to blame.
        (Unavailable("away", code="database_unavailable"), "queued", 0),
        (Exhausted("slowly", retry_after=9), "queued", 0),
        (RuntimeError("a defect"), "failed", 1),
    ],
)
async def test_what_a_handler_raises_decides_whether_it_is_tried_again(
    raised: Exception, state: str, attempts: int
) -> None:
    async def do(run: Run) -> Outcome:
        raise raised

    at = house(do)
    await at.job()
    ended = await at.take()
    assert (ended.state, ended.attempts) == (state, attempts)
    if isinstance(raised, RuntimeError):
        assert ended.error is not None
        assert "a defect" not in ended.error.message
    if isinstance(raised, Exhausted):
        assert (ended.due_at - datetime.now(ended.due_at.tzinfo)) > timedelta(seconds=8)


async def test_five_attempts_and_no_more() -> None:
    async def do(run: Run) -> Outcome:
        return Again(0.0, OUCH)

    at = house(do)
    await at.job()
    states = [(await at.take()).state for _ in range(5)]
    assert states == ["queued"] * 4 + ["failed"]
    ended = await at.now()
    assert (ended.attempts, ended.turn, ended.error) == (5, 4, OUCH)
    retried = await at.jobs.retry("p", "1")
    assert (retried.state, retried.attempts, retried.turn, retried.error) == ("queued", 0, 5, None)
    with pytest.raises(Conflict):
        await at.jobs.retry("p", "1")


async def test_snoozing_uses_up_no_attempt_but_ends_at_last() -> None:
    async def do(run: Run) -> Outcome:
        return Again(0.0, OUCH, counted=False)

    at = house(do)
    await at.job()
    for _ in range(rules.TURNS):
        assert (await at.take()).state == "queued"
    assert ((await at.take()).state, (await at.now()).attempts) == ("failed", 1)


async def test_a_job_that_takes_its_workers_along_is_given_up() -> None:
    at = house(done)
    died = await at.job(state="running", node="dead", attempts=rules.ATTEMPTS)
    assert died.attempts == 5
    ended = await at.take()
    assert (ended.state, ended.error) == ("failed", rules.WORKER_DIED)


async def test_cancelling_ends_what_runs_and_what_waits() -> None:
    began = asyncio.Event()

    async def do(run: Run) -> Outcome:
        began.set()
        await asyncio.sleep(60)
        return Completed()

    at = house(do)
    await at.job()
    await at.job("2")
    assert (await at.jobs.cancel("p", "2")).state == "cancelled"
    turn = asyncio.create_task(at.take())
    await began.wait()
    assert (await at.jobs.cancel("p", "1")).cancel_asked
    assert (await turn).state == "cancelled"
    with pytest.raises(Conflict):
        await at.jobs.cancel("p", "1")
    with pytest.raises(Missing):
        await at.jobs.cancel("q", "1")


async def test_a_stopping_worker_gives_back_what_does_not_end() -> None:
    began = asyncio.Event()

    async def do(run: Run) -> Outcome:
        began.set()
        await asyncio.sleep(60)
        return Completed()

    at = house(do)
    await at.job()
    await at.job("2")
    turn = asyncio.create_task(at.take())
    await began.wait()
    await at.worker.stop(0.01)
    back = await turn
    assert (back.state, back.attempts, back.turn, back.node) == ("queued", 0, 1, None)
    # What is handed to it now is left for others.
    assert ((await at.take("2")).state, (await at.now("2")).turn) == ("queued", 1)


async def test_what_goes_on_elsewhere_where_it_was_left_is_given_back_at_once() -> None:
    began = asyncio.Event()

    async def do(run: Run) -> Outcome:
        run.stop_at_once()
        began.set()
        await asyncio.sleep(600)
        return Completed({})

    at = house(do)
    await at.job()
    taking = asyncio.create_task(at.take())
    await began.wait()
    async with asyncio.timeout(60):
        await at.worker.stop(600)
        left = await taking
    assert (left.state, left.attempts) == ("queued", 0)


async def test_jobs_of_a_paused_queue_are_not_begun() -> None:
    at = house(done)
    await at.job()
    await at.jobs.pause_queue("default")
    waiting = await at.take()
    assert (waiting.state, waiting.turn, waiting.attempts) == ("queued", 1, 0)
    await at.jobs.resume_queue("default")
    assert (await at.take()).state == "completed"
    with pytest.raises(Missing):
        await at.jobs.pause_queue("nonsense")


async def test_a_job_that_was_given_to_others_is_let_go_and_not_written() -> None:
    began = asyncio.Event()
    ended: list[bool] = []

    async def do(run: Run) -> Outcome:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)
        return Completed()

    at = house(do)
    await at.job()
    turn = asyncio.create_task(at.take())
    await began.wait()
    mine = await at.now()
    other = rules.begun(mine, "other", NOON)
    assert await at.store.change(mine, other)
    await at.worker.look_after()
    assert (await turn) == other
    assert ended


async def test_a_job_is_told_once_to_end() -> None:
    began, ending, let = asyncio.Event(), asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    async def do(run: Run) -> Outcome:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ending.set()
            await let.wait()
            ended.append("cleaned up")
        return Completed()

    at = house(do)
    await at.job()
    turn = asyncio.create_task(at.take())
    await began.wait()
    await at.jobs.pause("p", "1")
    at.worker.let_go("p", "1")
    await ending.wait()
    # The heartbeat sees the same every two seconds.
    await at.worker.look_after()
    await at.worker.look_after()
    await asyncio.sleep(0)
    let.set()
    assert (await turn).state == "paused"
    assert ended == ["cleaned up"]


async def test_a_job_that_nobody_does_is_given_back() -> None:
    at = house(done)
    await at.job(state="running", node="me", attempts=1)
    await at.worker.look_after()
    back = await at.now()
    assert (back.state, back.turn, back.attempts) == ("queued", 1, 1)
    assert (await at.take()).state == "completed"


async def test_the_end_of_a_job_waits_for_a_database_that_is_away() -> None:
    class Away(MemoryJobs):
        failures = 0

        async def change(self, before: Job, after: Job, followers: Sequence[Job] = ()) -> bool:
            if after.state == "completed" and self.failures < 2:
                self.failures += 1
                raise Unavailable("away", code="database_unavailable")
            return await super().change(before, after, followers)

    at = house(done, Away())
    await at.job()
    assert (await at.take()).state == "completed"


async def test_whoever_wants_to_be_told_is_told_by_a_job_of_its_own() -> None:
    at = house(done)
    await at.job(payload={"webhook": {"url": "https://example.com"}}, subject="qa")
    await at.take()
    (notice,) = [one for one in at.store.rows.values() if one.parent == "1"]
    assert (notice.kind, notice.queue, notice.state) == ("webhook", "priority", "queued")
    assert notice.payload == {"url": "https://example.com", "kind": "test", "state": "completed"}


async def test_an_unknown_kind_fails_and_says_so() -> None:
    at = house(done)
    await at.job(kind="strange")
    ended = await at.take()
    assert ended.error is not None
    assert "strange" in ended.error.message


async def test_submitting_to_a_queue_that_does_not_exist_is_refused() -> None:
    at = house(done)
    with pytest.raises(Invalid):
        await at.jobs.submit(job(queue="nonsense"))


def sweeper(store: MemoryJobs, engine: Engine, alive: Sequence[str] = ()) -> Sweeper:
    async def living(*, beat_after: datetime) -> Sequence[str]:
        return alive

    return Sweeper(store, {}, engine, living, SystemClock(), "me", ["default"])


async def test_waiting_jobs_are_handed_over_once_for_each_turn() -> None:
    store, engine = MemoryJobs(), Engine()
    handing = sweeper(store, engine)
    await store.add(
        job("1"), job("2", due_at=datetime.now(NOON.tzinfo) + timedelta(hours=1)), job("3", queue="cleanup")
    )
    await handing.sweep()
    await handing.sweep()
    assert engine.enqueued == [("1", 0)]
    first = await store.get("p", "1")
    assert first is not None
    assert await store.change(first, rules.unbegun(first))
    await handing.sweep()
    assert engine.enqueued == [("1", 0), ("1", 1)]


async def test_dead_workers_lose_their_jobs_and_forgotten_ones_are_queued_again() -> None:
    store, engine = MemoryJobs(), Engine(owned={"dead": [], "living": [], "me": []})
    running = {"state": "running", "attempts": 1}
    await store.add(
        job("1", node="dead", **running),
        job("2", node="dead", **running),
        job("3", node="living", **running),
        job("4"),
    )
    engine.states = {"1": "open", "4": "ended"}
    await sweeper(store, engine, ["living"]).reap()
    assert engine.taken == ["dead"]
    found = {one.id: (one.state, one.turn) for one in store.rows.values()}
    # 1 comes back through the engine; of 2 it knows nothing; 4 was taken by a worker that did nothing.
    assert found == {"1": ("running", 0), "2": ("queued", 1), "3": ("running", 0), "4": ("queued", 1)}


async def test_after_an_outage_the_others_have_time_to_beat_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "REAP_S", 0.01)
    engine = Engine(owned={"other": []})
    # While the database was away, nobody could beat. The other one has not yet, when it is back; then it has.
    rounds: list[Sequence[str] | None] = [["other"], None, None, []]
    looked = asyncio.Event()

    async def living(*, beat_after: datetime) -> Sequence[str]:
        if not rounds:
            looked.set()
            return ["other"]
        found = rounds.pop(0)
        if found is None:
            raise Unavailable("away", code="database_unavailable")
        return found

    reaping = asyncio.create_task(
        Sweeper(MemoryJobs(), {}, engine, living, SystemClock(), "me", ["default"]).reap_for_ever()
    )
    await asyncio.wait_for(looked.wait(), 5)
    assert engine.taken == []
    # And when it never beats again it is dead after all.
    rounds.append([])
    async with asyncio.timeout(5):
        while not engine.taken:
            await asyncio.sleep(0.01)
    reaping.cancel()


async def test_a_lease_is_not_held_by_an_old_heartbeat() -> None:
    clock = SystemClock()
    now = [clock.monotonic()]

    class Clock(SystemClock):
        def monotonic(self) -> float:
            return now[0]

    lease = Lease(nothing, Clock())
    await lease.beat()
    await lease.held()
    now[0] += 16
    waiting = asyncio.create_task(lease.held())
    await asyncio.sleep(0)
    assert not waiting.done()
    await lease.beat()
    await asyncio.wait_for(waiting, 1)


async def test_failed_stays_failed() -> None:
    async def do(run: Run) -> Outcome:
        return Failed(OUCH)

    at = house(do)
    await at.job()
    assert ((await at.take()).state, (await at.take()).attempts) == ("failed", 1)
