"""What an execution waits for before a worker has it is none of its program's time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dspex.configuration.pools import PoolSettings
from dspex.executions.ports import PoolTask
from dspex.kit.waiting import Waiting
from dspex.providers.pool import pools as module
from dspex.providers.pool.pools import WorkerPools
from dspex.providers.pool.worker import Worker
from dspex.providers.worker_protocol import worker_pb2 as wire
from tests.clock import FakeClock
from tests.plugins.pools import ScriptedHost

STARTS_S, QUEUES_S, RUNS_S = 5.0, 2.0, 1.0


class SlowPool:
    """Takes its time to start, to have a place free, and to run."""

    busy = False

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    async def start(self) -> None:
        self._clock.advance(STARTS_S)

    @asynccontextmanager
    async def lease(self, session_id: str | None = None) -> AsyncIterator[Worker]:
        self._clock.advance(QUEUES_S)
        process: Any = type("Process", (), {"path": "/nowhere", "token": b"t"})
        worker = Worker(process, 1, 0.0)
        worker.execute = self._execute  # type: ignore[method-assign]
        yield worker
        await worker.aclose()

    async def _execute(self, *_: Any) -> wire.FromWorker:
        self._clock.advance(RUNS_S)
        return wire.FromWorker(finished=wire.Finished(outputs_json=b"{}", violations_json=b"[]"))

    async def aclose(self) -> None: ...


async def test_neither_the_start_of_a_pool_nor_its_queue_is_time_of_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    monkeypatch.setattr(module, "Pool", lambda *_: SlowPool(clock))
    pools = WorkerPools({"general": PoolSettings()}, (), clock)
    waiting = Waiting(clock)
    task = PoolTask(
        "general", "default", "d", b"{}", "e1", "r1", b"{}", b"{}", 1e9, 1000, False, waiting=waiting
    )
    began = clock.monotonic()
    await pools.run(task, ScriptedHost())
    assert (waiting.total_s, clock.monotonic() - began) == (STARTS_S + QUEUES_S, STARTS_S + QUEUES_S + RUNS_S)
    await pools.run(task, ScriptedHost())
    assert waiting.total_s == STARTS_S + 2 * QUEUES_S
    await pools.aclose()
