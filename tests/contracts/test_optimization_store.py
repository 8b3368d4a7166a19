"""What every store of optimizations, and every journal, promises."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.jobs import rules
from dspex.jobs.records import Completed, Failed, JobError
from dspex.optimizations.ports import Journal, OptimizationStore
from dspex.optimizations.records import (
    Best,
    Counters,
    Ended,
    Event,
    Kept,
    OptimizationFilter,
    Standing,
    Totals,
)
from tests.contracts.conftest import Stores
from tests.making import NOON, minutes, optimization, program, version

ALL = OptimizationFilter()
STANDING = Standing(
    phase="optimizing",
    baseline_score=0.25,
    best=Best(
        0.5,
        {"z": {"demos": [{"a": "\x00\ud800"}]}, "a": 1},
        3,
        full=True,
        ours=True,
        demos=({"row": "r", "index": 0},),
    ),
    candidates=4,
    curve=({"number": 1, "score": None}, {"number": 3, "score": 0.5}),
    counters=Counters(lm_calls=7, cost_usd=0.125, running_s=1.5),
)


@pytest.fixture
def store(stores: Stores) -> OptimizationStore:
    return stores.optimizations


@pytest.fixture
def journal(stores: Stores) -> Journal:
    return stores.journal


async def test_an_optimization_comes_back_exactly(store: OptimizationStore) -> None:
    made, job = optimization(author="k", standing=STANDING)
    await store.add(made, job)
    assert await store.get("default", made.id) == made
    assert await store.get("other", made.id) is None
    assert await store.get("default", "absent") is None


async def test_it_follows_its_job(stores: Stores, store: OptimizationStore) -> None:
    made, job = optimization()
    await store.add(made, job)
    assert await stores.jobs.get("default", made.id) == job
    begun = rules.begun(job, "n", NOON + minutes(1))
    assert await store.change(job, begun)
    # Somebody who has not seen that changes nothing.
    assert not await store.change(job, rules.cancelled(job, NOON))
    found = await store.get("default", made.id)
    assert found is not None
    assert (found.state, found.attempts, found.started_at) == ("running", 1, NOON + minutes(1))
    done = rules.settled(begun, Completed({"score": 0.5, "demos": [{"row": "1"}]}), NOON + minutes(2))
    assert await store.change(begun, done)
    found = await store.get("default", made.id)
    assert found is not None
    assert (found.state, found.completed_at) == ("completed", NOON + minutes(2))
    assert found.result == {"score": 0.5, "demos": [{"row": "1"}]}
    other, second = optimization()
    await store.add(other, second)
    begun = rules.begun(second, "n", NOON)
    assert await store.change(second, begun)
    error = JobError("internal", "optimizer_failed", "ouch\x00")
    assert await store.change(begun, rules.settled(begun, Failed(error), NOON))
    found = await store.get("default", other.id)
    assert found is not None and found.error == error


async def test_only_who_has_it_says_how_far_it_is(stores: Stores, store: OptimizationStore) -> None:
    made, job = optimization()
    await store.add(made, job)
    begun = rules.begun(job, "n", NOON)
    assert await store.change(job, begun)
    events = [
        Event(1, NOON, {"event": "log", "text": "\ud800"}),
        Event(2, NOON + minutes(1), {"b": 1, "a": 2}),
    ]
    assert await store.note(begun, STANDING, events)
    found = await store.get("default", made.id)
    assert found is not None and found.standing == STANDING
    noted = await stores.jobs.get("default", made.id)
    assert noted is not None and noted.progress is not None
    assert (noted.progress["best_score"], noted.progress["lm_calls"]) == (0.5, 7)
    assert await store.events("default", made.id, after=0, limit=9) == events
    assert await store.events("default", made.id, after=1, limit=9) == events[1:]
    assert await store.events("default", made.id, after=0, limit=1) == events[:1]
    for beyond in (2, 2**31, 10**15 - 1):
        assert await store.events("default", made.id, after=beyond, limit=9) == []
    assert await store.last_event("default", made.id) == 2
    assert await store.last_event("default", "absent") == 0
    # The same again, since nobody knew whether it was written.
    assert await store.note(begun, STANDING, events)
    again = rules.begun(begun, "m", NOON)
    assert await store.change(begun, again)
    assert not await store.note(begun, Standing(), [Event(3, NOON, {})])
    assert await store.last_event("default", made.id) == 2


async def test_the_best_program_is_written_when_there_is_another(store: OptimizationStore) -> None:
    made, job = optimization()
    await store.add(made, job)
    begun = rules.begun(job, "n", NOON)
    assert await store.change(job, begun)
    assert await store.note(begun, STANDING)
    later = replace(STANDING, candidates=5)
    # What is given as the best is not looked at.
    assert await store.note(begun, replace(later, best=replace(STANDING.best, state={})), best=False)
    found = await store.get("default", made.id)
    assert found is not None and found.standing == later
    better = replace(later, best=Best(0.75, {"a": 2}, 5))
    assert await store.note(begun, better)
    found = await store.get("default", made.id)
    assert found is not None and found.standing == better


async def test_lists_are_newest_first_and_leave_programs_out(store: OptimizationStore) -> None:
    made = [
        optimization(created_at=NOON + minutes(number), standing=STANDING, program=f"p{number % 2}")
        for number in range(4)
    ]
    for one, job in made:
        await store.add(one, job)
    first = await store.list("default", ALL, limit=3, cursor=None)
    rest = await store.list("default", ALL, limit=3, cursor=first.next_cursor)
    assert [one.id for one in (*first.data, *rest.data)] == [one.id for one, _ in reversed(made)]
    assert rest.next_cursor is None
    assert STANDING.best is not None
    shown = replace(STANDING, best=replace(STANDING.best, state={}))
    assert first.data[0].standing == shown
    found = await store.get("default", first.data[0].id, whole=False)
    assert found is not None and found.standing == shown
    assert (
        len((await store.list("default", OptimizationFilter(program="p1"), limit=9, cursor=None)).data) == 2
    )
    for where in (
        OptimizationFilter(state="running"),
        OptimizationFilter(optimizer="GEPA"),
        OptimizationFilter(author="k"),
    ):
        assert (await store.list("default", where, limit=9, cursor=None)).data == ()
    assert (await store.list("other", ALL, limit=9, cursor=None)).data == ()


async def test_the_same_is_found_unless_it_came_to_nothing(store: OptimizationStore) -> None:
    async def unique(**changes: object) -> str:
        return (await store.add(*optimization(**changes), unique=True)).id

    old, first = optimization()
    new, second = optimization(created_at=NOON + minutes(1))
    assert (await store.add(old, first, unique=True)).id == old.id
    # Who does not ask for it gets another.
    assert (await store.add(new, second)).id == new.id
    assert await unique() == new.id
    assert await store.change(second, rules.cancelled(second, NOON))
    assert await unique() == old.id
    assert await unique(identity="other") not in (old.id, new.id)
    assert await unique(project="other") not in (old.id, new.id)
    assert await store.change(first, rules.cancelled(first, NOON))
    assert await unique() not in (old.id, new.id)


async def test_of_many_who_add_the_same_at_once_one_does(stores: Stores, store: OptimizationStore) -> None:
    made = [optimization(identity="once") for _ in range(5)]
    added = await asyncio.gather(*(store.add(one, job, unique=True) for one, job in made))
    (only,) = {one.id for one in added}
    assert [one.id for one in (await store.list("default", ALL, limit=9, cursor=None)).data] == [only]
    jobs = [await stores.jobs.get("default", job.id) for _, job in made]
    assert [one.id for one in jobs if one is not None] == [only]


async def test_journals_and_events_go_some_time_after_the_end(
    store: OptimizationStore, journal: Journal
) -> None:
    ended, first = optimization()
    open_, second = optimization()
    for one, job in ((ended, first), (open_, second)):
        await store.add(one, job)
        begun = rules.begun(job, "n", NOON)
        assert await store.change(job, begun)
        assert await store.note(begun, STANDING, [Event(1, NOON, {})])
        await journal.keep("default", one.id, Kept("d", 0, {}, 0.5, NOON))
        if one is ended:
            assert await store.change(begun, rules.settled(begun, Completed({}), NOON))
    assert await store.prune(ended_before=NOON) == 0
    assert await store.prune(ended_before=NOON + minutes(1)) == 1
    assert await store.prune(ended_before=NOON + minutes(1)) == 0
    assert await journal.places("default", ended.id) == set()
    assert await store.events("default", ended.id, after=0, limit=9) == []
    assert await journal.places("default", open_.id) == {("d", 0)}
    assert await store.last_event("default", open_.id) == 1
    # What it came to is kept.
    assert await store.get("default", ended.id) is not None


async def test_what_is_kept_is_found_again(journal: Journal) -> None:
    reply = {"text": "\x00\ud800", "usage": {"b": 1, "a": 2}, "canonical": None}
    kept = [
        Kept("d1", 0, reply, 0.25, NOON),
        Kept("d1", 1, {"error": {"kind": "invalid"}}, 0.0, NOON + timedelta(microseconds=1)),
        Kept("d2", 0, {"text": None}, None, NOON),
    ]
    await asyncio.gather(*(journal.keep("p", "o", one) for one in kept))
    assert await journal.places("p", "o") == {("d1", 0), ("d1", 1), ("d2", 0)}
    for one in kept:
        assert await journal.find("p", "o", one.digest, one.ordinal) == one
    assert await journal.find("p", "o", "d2", 1) is None
    first = await journal.page("p", "o", after=None, limit=2)
    rest = await journal.page("p", "o", after=("d1", 1), limit=2)
    assert [*first, *rest] == kept
    assert await journal.page("p", "o", after=("d1", 0), limit=1) == kept[1:2]
    assert await journal.page("p", "o", after=("d2", 0), limit=2) == []
    assert await journal.page("p", "other", after=None, limit=2) == []
    assert await journal.find("p", "other", "d1", 0) is None
    assert await journal.places("q", "o") == set()
    assert await journal.totals("p", "o") == Totals(3, 0.25, 1)
    assert await journal.totals("p", "other") == Totals()
    # A worker that was given up for dead, and comes late.
    await journal.keep("p", "o", replace(kept[0], cost_usd=0.5))
    assert await journal.totals("p", "o") == Totals(3, 0.5, 1)


async def test_who_shows_a_row_is_known(stores: Stores) -> None:
    one = program()
    await stores.programs.add(one)
    demos = [
        {"predictor": "self", "index": 0, "row": "r1"},
        {"predictor": "self", "index": 1, "row": "r2"},
        {"predictor": "other", "index": 0, "row": "r1"},
        {"predictor": "self", "index": 2, "row": None},
        {"predictor": "self", "index": 3, "row": "r9", "dataset": "older", "dataset_version": 1},
    ]
    lineage = {"dataset": {"name": "tickets", "version": 2, "digest": "x"}, "demos": demos}
    made = await stores.programs.add_version(version(one, lineage=lineage))
    assert await stores.programs.version("default", made.id) == made
    await stores.programs.add_version(version(one, "d2"))
    (shown,) = await stores.programs.showing("default", row_id="r1")
    assert (shown.program, shown.version, shown.status, shown.demos) == ("qa", 1, "draft", 2)
    (shown,) = await stores.programs.showing("default", dataset="tickets", versions=[1, 2])
    assert shown.demos == 3
    assert await stores.programs.showing("default", dataset="tickets", versions=[1]) == []
    (shown,) = await stores.programs.showing("default", dataset="older", versions=[1])
    assert shown.demos == 1
    assert await stores.programs.showing("default", row_id="r3") == []
    assert await stores.programs.showing("other", row_id="r1") == []


async def test_what_was_paid_counts_whoever_has_the_job(store: OptimizationStore) -> None:
    made, job = optimization(standing=STANDING)
    await store.add(made, job)
    paid = Counters(lm_calls=8, cost_usd=0.1, wasted_usd=0.5)
    await store.spent("default", made.id, paid)
    await store.spent("default", made.id, Counters())
    await store.spent("default", "absent", paid)
    found = await store.get("default", made.id)
    assert found is not None
    counted = Counters(lm_calls=8, cost_usd=0.125, wasted_usd=0.5, running_s=1.5)
    assert found.standing == replace(STANDING, counters=counted)


async def test_failures_that_may_pass_are_forgotten(journal: Journal) -> None:
    kept = [
        Kept("d1", 0, {"text": "\x00\ud800", "usage": {}}, 0.0, NOON),
        Kept("d1", 1, {"error": {"kind": "unavailable", "code": "x", "message": "\x00\ud800"}}, 0.0, NOON),
        Kept("d2", 0, {"error": {"kind": "invalid", "code": "x", "message": ""}}, 0.0, NOON),
    ]
    for one in kept:
        await journal.keep("p", "o", one)
        await journal.keep("p", "other", one)
    await journal.forget_failures("p", "o", frozenset({"unavailable", "timeout"}))
    await journal.forget_failures("p", "absent", frozenset({"unavailable"}))
    assert await journal.places("p", "o") == {("d1", 0), ("d2", 0)}
    assert len(await journal.places("p", "other")) == 3


async def test_those_that_ended_are_told_in_the_order_of_their_ends(store: OptimizationStore) -> None:
    result = {"score": 0.75, "baseline_score": 0.5, "demos": []}
    ends = {"c": (3, "completed", result), "a": (1, "failed", None), "b": (1, "cancelled", None)}
    for name, (at, state, came_to) in ends.items():
        started = None if name == "b" else NOON
        over: dict[str, Any] = {"started_at": started, "completed_at": NOON + minutes(at), "result": came_to}
        await store.add(*optimization(id=name, optimizer="GEPA", state=state, **over))
    await store.add(*optimization(id="runs", state="running", started_at=NOON))
    await store.add(*optimization(id="other", project="other", state="failed", completed_at=NOON))
    found = await store.ended(after=None, limit=9)
    assert [one.id for one in found] == ["other", "a", "b", "c"]
    assert found[-1] == Ended("default", "c", "GEPA", "completed", NOON, NOON + minutes(3), 0.5, 0.75)
    assert (found[2].started_at, found[2].score) == (None, None)
    assert [one.id for one in await store.ended(after=None, limit=2)] == ["other", "a"]
    assert [one.id for one in await store.ended(after=(NOON + minutes(1), "a"), limit=9)] == ["b", "c"]
    assert [one.id for one in await store.ended(after=(NOON + minutes(1), ""), limit=9)] == ["a", "b", "c"]
    counts = await store.count_ended("default", since=NOON, until=NOON + minutes(3))
    assert counts == {"failed": 1, "cancelled": 1}
    assert await store.count_ended("default", since=NOON + minutes(3), until=NOON + minutes(9)) == {
        "completed": 1
    }
