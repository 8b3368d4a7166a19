"""Waiting for a place in a worker, where the place and the end of the wait come together."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from dspex.configuration.pools import PoolSettings
from dspex.kit.errors import Exhausted
from dspex.providers.pool.pool import Pool

WAIT_S = 0.05


@dataclass
class OnePlace:
    """A worker that takes one execution at a time."""

    in_flight: int = 0
    served: int = 0

    @property
    def state(self) -> Literal["ready", "busy"]:
        return "busy" if self.in_flight else "ready"


def pool_of(worker: OnePlace) -> Pool:
    pool = Pool("general", PoolSettings(workers=1, queue=10, queue_timeout_s=WAIT_S), ())
    workers: list[Any] = pool._workers
    workers.append(worker)
    return pool


async def test_a_place_that_comes_when_the_wait_ends_is_used() -> None:
    worker = OnePlace()
    pool = pool_of(worker)
    holding: Any = pool.lease()
    await holding.__aenter__()

    async def wait() -> None:
        async with pool.lease():
            assert worker.in_flight == 1

    def release() -> None:
        with pytest.raises(StopIteration):
            holding.__aexit__(None, None, None).send(None)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    # The loop is held up until both are due, as busy loops are: in one turn the place is given and the wait ends.
    loop = asyncio.get_running_loop()
    loop.call_later(0.2 * WAIT_S, time.sleep, 2 * WAIT_S)
    loop.call_later(0.4 * WAIT_S, release)
    await waiting
    assert (worker.in_flight, worker.served) == (0, 2)
    assert not pool.busy


async def test_who_waits_in_vain_leaves_no_place_taken() -> None:
    worker = OnePlace()
    pool = pool_of(worker)
    async with pool.lease():
        with pytest.raises(Exhausted, match="No worker"):
            async with pool.lease():
                pytest.fail("there is no place")
    assert not pool.busy
    async with pool.lease():
        assert worker.in_flight == 1


async def test_under_overload_every_place_comes_back() -> None:
    worker = OnePlace()
    pool = pool_of(worker)
    pool.settings = pool.settings.model_copy(update={"queue": 1000})

    async def use() -> bool:
        try:
            async with pool.lease():
                await asyncio.sleep(0)
                # What a busy loop does to timers.
                time.sleep(0.0005)  # noqa: ASYNC251
            return True
        except Exhausted:
            return False

    for _ in range(5):
        answered = await asyncio.gather(*(use() for _ in range(250)))
        assert any(answered)
        assert not all(answered)
        assert not pool.busy
