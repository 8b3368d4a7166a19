"""What every store of jobs promises."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.jobs import rules
from dspex.jobs.ports import JobStore
from dspex.jobs.records import QUEUES, Again, Completed, Job, JobCount, JobError, JobFilter
from dspex.kit.errors import Invalid
from tests.contracts.conftest import Stores
from tests.making import NOON, execution, minutes

ALL = JobFilter()
ANY = list(QUEUES)
OUCH = JobError("unavailable", "ouch", "it hurt\x00")


@pytest.fixture
def store(stores: Stores) -> JobStore:
    return stores.jobs


def job(job_id: str, **changes: Any) -> Job:
    given: dict[str, Any] = {"created_at": NOON, "due_at": NOON, "payload": {"b": 1, "a": [None]}, **changes}
    return Job(
        id=job_id,
        project=given.pop("project", "p"),
        kind="test",
        queue=given.pop("queue", "default"),
        **given,
    )


async def begun(store: JobStore, made: Job, node: str = "n") -> Job:
    """Added, and begun by a node."""
    await store.add(made)
    after = rules.begun(made, node, NOON)
    assert await store.change(made, after)
    return after


async def test_a_job_comes_back_exactly(store: JobStore) -> None:
    made = job("1", subject="qa\ud800", author="k", parent="0", priority=2, due_at=NOON + minutes(1))
    await store.add(made)
    assert await store.get("p", "1") == made
    assert await store.get("q", "1") is None
    running = rules.begun(made, "n", NOON + minutes(2))
    assert await store.change(made, running)
    assert await store.get("p", "1") == running
    failed = rules.settled(running, Again(5.0, OUCH), NOON)
    assert await store.change(running, failed)
    assert await store.get("p", "1") == failed


async def test_only_who_has_a_job_changes_it(store: JobStore) -> None:
    first = await begun(store, job("1"))
    second = rules.begun(first, "m", NOON)
    assert await store.change(first, second)
    follower = job("2", parent="1")
    assert not await store.change(first, rules.settled(first, Completed(), NOON), [follower])
    assert not await store.progress(first, {"done": 1})
    assert await store.get("p", "2") is None
    assert await store.progress(second, {"done": 1})
    ended = rules.settled(second, Completed({"answer": 42}), NOON)
    assert await store.change(second, ended, [follower])
    assert await store.get("p", "1") == replace(ended, progress={"done": 1})
    assert await store.get("p", "2") == follower


async def test_a_job_is_asked_to_end_while_it_runs_only(store: JobStore) -> None:
    running = await begun(store, job("1"))
    await store.add(job("2"))
    assert not await store.ask_cancel("p", "2")
    assert not await store.ask_cancel("q", "1")
    assert await store.ask_cancel("p", "1")
    back = rules.given_back(running, NOON)
    assert await store.change(running, back)
    stored = await store.get("p", "1")
    assert stored is not None and stored.cancel_asked
    cancelled = rules.begun(stored, "n", NOON)
    assert cancelled.state == "cancelled"
    assert await store.change(stored, cancelled)
    retried = rules.retried(cancelled, NOON)
    assert await store.change(cancelled, retried)
    stored = await store.get("p", "1")
    assert stored is not None and not stored.cancel_asked


async def test_jobs_wait_by_priority_and_age_in_queues_that_are_not_paused(store: JobStore) -> None:
    await store.add(
        job("1", created_at=NOON + minutes(1)),
        job("2"),
        job("3", priority=1, created_at=NOON + minutes(2), project="q"),
        job("4", queue="llm_calls"),
        job("5", due_at=NOON + minutes(5)),
        job("6", queue="cleanup"),
    )
    await begun(store, job("7"))

    async def waiting(*queues: str, at: float = 3, limit: int = 9) -> list[str]:
        found = await store.waiting(queues, at=NOON + minutes(at), limit=limit)
        assert all(one.payload == {} for one in found)
        return [one.id for one in found]

    assert await waiting("default") == ["3", "2", "1"]
    assert await waiting("default", limit=2) == ["3", "2"]
    assert sorted(await waiting("default", "llm_calls", limit=1)) == ["3", "4"]
    assert await waiting("default", at=6) == ["3", "2", "5", "1"]
    assert await store.next_due(after=NOON + minutes(3)) == NOON + minutes(5)
    assert await store.next_due(after=NOON + minutes(5)) is None
    await store.pause("default", NOON)
    await store.pause("default", NOON + minutes(1))
    assert await store.paused() == {"default": NOON}
    assert await waiting("default", "cleanup") == ["6"]
    await store.pause("default", None)
    assert await store.paused() == {}
    assert len(await waiting("default")) == 3


async def test_it_says_whether_there_is_anything_to_do(store: JobStore) -> None:
    assert not await store.unfinished()
    assert not await store.recorded()
    running = await begun(store, job("1"))
    assert await store.unfinished()
    assert not await store.overdue(since=NOON + minutes(1))
    await store.add(job("2", due_at=NOON + minutes(1)))
    assert not await store.overdue(since=NOON + minutes(1))
    assert await store.overdue(since=NOON + minutes(2))
    await store.pause("default", NOON)
    assert not await store.overdue(since=NOON + minutes(2))
    assert [one.id for one in await store.running()] == ["1"]
    assert await store.change(running, rules.settled(running, Completed(), NOON))
    waiting = await store.get("p", "2")
    assert waiting is not None
    assert await store.change(waiting, rules.cancelled(waiting, NOON))
    assert not await store.unfinished()
    assert await store.recorded()


async def test_a_list_is_filtered_and_paged_from_the_newest(store: JobStore) -> None:
    await store.add(
        *(job(str(one), created_at=NOON + minutes(one // 2), author="ab"[one % 2]) for one in range(6)),
        job("7", created_at=NOON + minutes(9), queue="cleanup", parent="5"),
        job("8", project="q"),
    )

    async def ids(where: JobFilter) -> list[str]:
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = await store.list("p", where, limit=2, cursor=cursor)
            found += [one.id for one in page.data]
            cursor = page.next_cursor
            if cursor is None:
                return found

    assert await ids(ALL) == ["7", "5", "4", "3", "2", "1", "0"]
    assert await ids(JobFilter(author="a")) == ["4", "2", "0"]
    assert await ids(JobFilter(queue="cleanup", kind="test", state="queued", parent="5")) == ["7"]
    assert await ids(JobFilter(state="failed")) == []
    with pytest.raises(Invalid):
        await store.list("p", ALL, limit=2, cursor="nonsense")


async def test_jobs_are_counted_by_kind_queue_and_state(store: JobStore) -> None:
    await store.add(job("1"), job("2"), job("3", project="q"))
    await begun(store, job("4"))
    queued, running = JobCount("test", "default", "queued", 2), JobCount("test", "default", "running", 1)
    assert await store.counts("p") == [queued, running]
    assert await store.counts(None) == [replace(queued, jobs=3), running]


async def test_old_jobs_go_when_they_are_over(store: JobStore) -> None:
    old = await begun(store, job("1", created_at=NOON - timedelta(days=9)))
    assert await store.change(old, rules.settled(old, Completed(), NOON - timedelta(days=8)))
    await begun(store, job("2", created_at=NOON - timedelta(days=9)))
    assert await store.prune(completed_before=NOON - timedelta(days=7)) == 1
    assert [one.id for one in (await store.list("p", ALL, limit=9, cursor=None)).data] == ["2"]
    assert await store.prune(completed_before=NOON - timedelta(days=7)) == 0


async def test_a_background_execution_is_written_with_its_job_or_not_at_all(stores: Stores) -> None:
    made, pending = job("1"), execution(id="1", project="p", status="pending", node="")
    await stores.background.submit(made, pending)
    assert await stores.executions.get("p", "1") == pending
    running = rules.begun(made, "n", NOON)
    assert await stores.background.change(made, running, replace(pending, status="running", node="n"))
    done = replace(pending, status="completed", outputs={"answer": "x"})
    ended = rules.settled(running, Completed(), NOON)
    assert not await stores.background.change(made, ended, done)
    found = await stores.executions.get("p", "1")
    assert found is not None and found.status == "running"
    assert await stores.background.change(running, ended, done, [job("2", parent="1")])
    assert await stores.executions.get("p", "1") == done
    assert await stores.jobs.get("p", "2") is not None


async def test_what_a_job_is_about_to_run_is_no_orphan(stores: Stores) -> None:
    await stores.background.submit(job("1"), execution(id="1", project="p", status="pending", node=""))
    await stores.recorder.record(execution(id="2", project="p", status="running", node="dead"))
    failed = await stores.executions.fail_orphans(beat_before=NOON, at=NOON, reason="dead")
    assert failed == 1
    found = await stores.executions.get("p", "1")
    assert found is not None and found.status == "pending"
