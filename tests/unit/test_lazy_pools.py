"""Pools that nothing needed cost nothing; one that can't serve makes a node not ready."""

import sys
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.application.lazy_pools import LazyPools
from dspex.configuration.pools import PoolSettings
from dspex.executions.ports import PoolView, WorkerView
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Missing, Unavailable

READY = WorkerView(1, "ready", 0, 0, 1.0, 0)


class Opened:
    def __init__(self, *workers: WorkerView) -> None:
        self._workers = workers

    def view(self) -> list[PoolView]:
        return [PoolView("general", True, self._workers, 2, 0, 0)]


def lazy(share: int = 1, opened: Any = None) -> LazyPools:
    pools = LazyPools({"heavy": PoolSettings(workers=3)}, [], SystemClock(), share=share)
    pools._opened = opened
    return pools


async def test_pools_that_nothing_needed_are_shown_and_not_up() -> None:
    pools = lazy()
    assert [(one.name, one.up, one.wanted) for one in pools.view()] == [
        ("general", False, 2),
        ("heavy", False, 3),
    ]
    await pools.check()
    assert await pools.recycle("heavy") == 0
    with pytest.raises(Missing, match="general, heavy"):
        await pools.recycle("hevy")


def test_each_of_several_processes_has_its_share_and_one_worker_at_least() -> None:
    assert [one.wanted for one in lazy(share=2).view()] == [1, 2]
    assert [one.wanted for one in lazy(share=8).view()] == [1, 1]


@pytest.mark.parametrize("state", ["initializing", "degraded", "terminating"])
async def test_a_pool_without_a_worker_that_serves_is_not_ready(state: Any) -> None:
    with pytest.raises(Unavailable, match="no worker that serves"):
        await lazy(opened=Opened(replace(READY, state=state))).check()
    await lazy(opened=Opened(replace(READY, state=state), READY)).check()


async def test_without_what_pools_need_the_reason_and_the_remedy_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "dspex.providers.pool.pools", None)
    with pytest.raises(Unavailable) as refused:
        await lazy().inspect([])
    assert refused.value.code == "no_pool"
    assert "pip install 'dspex[dspy]'" in refused.value.message
