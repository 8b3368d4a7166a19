"""Pools of several processes: shown together, replaced together, and without those that say nothing."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
import structlog.testing
from msgspec.structs import replace

from dspex.application.pools_everywhere import PoolsEverywhere
from dspex.executions.ports import PoolView, WorkerView
from dspex.kit.errors import Missing
from dspex.kit.signals import LocalSignals
from dspex.providers.memory.executions import MemoryNodes
from tests.clock import FakeClock

WORKER = WorkerView(1, "ready", 2, 3, 4.0, 5, "age")


class Own:
    """The pools of one process."""

    def __init__(self, *pools: PoolView) -> None:
        self.pools = pools
        self.recycled: list[str] = []

    def view(self) -> tuple[PoolView, ...]:
        return self.pools

    async def recycle(self, name: str) -> int:
        found = [one for one in self.pools if one.name == name]
        if not found:
            raise Missing(f"There is no pool {name!r}.", code="pool_missing")
        self.recycled.append(name)
        return len(found[0].workers)


def pool(name: str, *pids: int, up: bool = True) -> PoolView:
    return PoolView(name, up, [replace(WORKER, pid=one) for one in pids], 2, 1, 3)


class Nodes:
    """Processes on one database."""

    def __init__(self, **own: Own) -> None:
        self.clock, self.signals, self.nodes = FakeClock(), LocalSignals(), MemoryNodes()
        self.own = own
        self.pools: dict[str, PoolsEverywhere] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Nodes":
        for name, own in self.own.items():
            made: Any = own
            self.pools[name] = PoolsEverywhere(made, self.signals, self.nodes, self.clock, name)
            await self._stack.enter_async_context(self.pools[name].answering())
            await self.nodes.beat(name, self.clock.now())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


async def test_one_alone_shows_what_it_has_and_asks_nobody() -> None:
    async with Nodes(a=Own(pool("general", 1), pool("heavy", up=False))) as nodes:
        shown = await nodes.pools["a"].everywhere()
        assert [(one.name, one.up, [(w.node, w.pid) for w in one.workers]) for one in shown] == [
            ("general", True, [("a", 1)]),
            ("heavy", False, []),
        ]
        done = await nodes.pools["a"].recycle("general")
        assert (done.workers, done.silent) == (1, [])


async def test_all_are_shown_and_replaced_whoever_is_asked() -> None:
    first = Own(pool("general", 1, 2), pool("heavy", up=False))
    second = Own(pool("general", 3), pool("heavy", 4))
    third = Own(pool("general", up=False), pool("heavy", up=False))
    async with Nodes(a=first, b=second, c=third) as nodes:
        for asked in nodes.pools.values():
            general, heavy = await asked.everywhere()
            assert {(one.node, one.pid) for one in general.workers} == {("a", 1), ("a", 2), ("b", 3)}
            assert (general.wanted, general.waiting, general.restarts, general.up) == (4, 2, 6, True)
            assert [replace(one, node="") for one in heavy.workers] == [replace(WORKER, pid=4)]
            assert (heavy.wanted, heavy.up) == (2, True)
        done = await nodes.pools["c"].recycle("general")
        assert (done.name, done.workers, done.silent) == ("general", 3, [])
        assert [one.recycled for one in (first, second, third)] == [["general"]] * 3


async def test_a_pool_that_does_not_exist_is_asked_of_nobody() -> None:
    async with Nodes(a=Own(pool("general", 1)), b=Own(pool("hevy", 2))) as nodes:
        with pytest.raises(Missing):
            await nodes.pools["a"].recycle("hevy")
        assert nodes.own["b"].recycled == []
        # One that only the asking process has is none of the other's.
        assert (await nodes.pools["a"].recycle("general")).workers == 1


async def test_who_says_nothing_is_named_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.application.pools_everywhere.ANSWER_S", 1.0)
    async with Nodes(a=Own(pool("general", 1)), b=Own(pool("general", 2))) as nodes:
        await nodes.nodes.beat("silent", nodes.clock.now())
        await nodes.nodes.beat("dead", nodes.clock.now() - timedelta(seconds=21))
        with structlog.testing.capture_logs() as told:
            done = await nodes.pools["a"].recycle("general")
        assert (done.workers, done.silent) == (2, ["silent"])
        assert [one["nodes"] for one in told if one["event"] == "pools_not_told"] == [["silent"]]
        (general,) = await nodes.pools["a"].everywhere()
        assert {one.node for one in general.workers} == {"a", "b"}


async def test_questions_at_the_same_time_do_not_mix() -> None:
    async with Nodes(a=Own(pool("general", 1)), b=Own(pool("general", 2))) as nodes:
        asked = [nodes.pools[name].everywhere() for name in ("a", "b") * 5]
        for general, *_ in await asyncio.gather(*asked):
            assert sorted(one.pid for one in general.workers) == [1, 2]
