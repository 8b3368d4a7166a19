"""How far an optimization is, as it is written down while it runs and when it ends."""

import asyncio
from collections.abc import Sequence

import pytest

from dspex.jobs.records import Job
from dspex.kit.errors import Unavailable
from dspex.optimizations import running
from dspex.optimizations.ports import OptimizerHost
from dspex.optimizations.records import Event, Optimized, OptimizerTask, Standing
from tests.unit.optimizations.house import BETTER, House, asked, candidate, optimized


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
