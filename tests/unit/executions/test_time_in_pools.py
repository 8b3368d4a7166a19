"""How long a program in a pool took by itself: what it waited for models, in whatever way, is none of it."""

import asyncio
from contextlib import suppress
from typing import Any, cast

import pytest
from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR
from dspex.executions.facts import ExecutionFinished
from dspex.executions.native.answers import Answer
from dspex.executions.pool_runner import PoolRunner
from dspex.executions.ports import PoolTask
from dspex.executions.records import Execution
from dspex.gateway.errors import LMServerError
from dspex.gateway.records import CallContext
from dspex.kit.facts import Facts
from dspex.kit.waiting import Waiting
from tests.clock import FakeClock
from tests.unit.executions.test_caching import World, runnable
from tests.unit.executions.test_caching_in_pools import program
from tests.unit.executions.test_embedding_calls import line
from tests.unit.executions.test_pool_host import Gateway, asked, host


def test_waits_that_overlap_count_once() -> None:
    clock = FakeClock()
    waiting = Waiting(clock)
    first, second = waiting.one(), waiting.one()
    clock.advance(10.0)
    first.__enter__()
    clock.advance(1.0)
    second.__enter__()
    clock.advance(1.0)
    assert waiting.total_s == 2.0
    first.__exit__(None, None, None)
    clock.advance(1.0)
    second.__exit__(None, None, None)
    clock.advance(10.0)
    assert waiting.total_s == 3.0
    with suppress(ValueError), waiting.one():
        clock.advance(0.5)
        raise ValueError
    assert waiting.total_s == 3.5


class SlowGateway(Gateway):
    """Fails after a while that no attempt took: as when it waits to try again, or for its turn."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    async def complete(self, request: Any, call: CallContext) -> Any:
        self._clock.advance(4.0)
        raise LMServerError("overloaded")

    async def embed(self, request: Any, call: CallContext) -> Any:
        self._clock.advance(2.0)
        raise LMServerError("overloaded")


async def test_whatever_the_gateway_waits_for_is_waited_for() -> None:
    clock = FakeClock()
    call = CallContext("e1", "r1", LOCAL_OPERATOR, "mine", waiting=(waiting := Waiting(clock)))
    served = host(SlowGateway(clock), call)
    with pytest.raises(LMServerError):
        await served.complete(asked("hi"))
    with pytest.raises(LMServerError):
        await served.embed({"model": "openai/x", "texts": ["a"]})
    assert waiting.total_s == 6.0


async def test_a_worker_is_waited_for_on_the_executions_account() -> None:
    clock = FakeClock()
    call = CallContext("e1", "r1", LOCAL_OPERATOR, "mine", waiting=(waiting := Waiting(clock)))

    class Starting:
        async def run(self, task: PoolTask, host: Any) -> Answer:
            with task.waits():
                clock.advance(3.0)
            return Answer({}, 2)

    runner = PoolRunner(cast(Any, Starting()), cast(Any, None), cast(Any, None), clock, Facts())
    await runner.run(program(repeatable=True), {}, {}, call, 1e9, 1000)
    assert waiting.total_s == 3.0


class Pools:
    """Takes two seconds itself, and waits for five; `outcome` is what comes of it."""

    def __init__(self, clock: FakeClock, outcome: Exception | None = None) -> None:
        self._clock = clock
        self._outcome = outcome

    async def run(self, program: Any, inputs: Any, parameters: Any, call: CallContext, *_: Any) -> Answer:
        assert call.waiting is not None
        self._clock.advance(2.0)
        with call.waiting.one():
            self._clock.advance(5.0)
            await asyncio.sleep(0)
        if self._outcome is not None:
            raise self._outcome
        return Answer({"b": 0.5}, 10, ())


@pytest.mark.parametrize("outcome", [None, LMServerError("overloaded")])
async def test_an_execution_says_how_long_its_pool_took_without_its_models(outcome: Exception | None) -> None:
    world, told = World(), []
    world.facts.subscribe(ExecutionFinished, told.append)
    world.service._pools = Pools(world.clock, outcome)  # type: ignore[assignment]
    execution = await world.predict(runnable(run=program(repeatable=True)))
    assert execution.duration_ms == 7000.0
    # Not a call was recorded, so that all of it was spent elsewhere than with a provider.
    assert execution.overhead_ms == 7000.0
    assert [one.pool_s for one in told] == [2.0]


async def test_what_runs_in_no_pool_took_no_time_in_one() -> None:
    world, told = World(), []
    world.facts.subscribe(ExecutionFinished, told.append)
    await world.predict()
    assert [one.pool_s for one in told] == [None]


class Keeper:
    cap = None

    async def own(self) -> None: ...

    async def keep(self, execution: Execution) -> Execution | None:
        return execution


@pytest.mark.parametrize(("answered_ms", "took_ms"), [(2000.0, 4000.0), (4500.0, 4500.0), (99_000.0, 7000.0)])
async def test_what_a_cap_held_is_no_time_of_the_execution(answered_ms: float, took_ms: float) -> None:
    """Unless another call of it was answered meanwhile."""
    world, told = World(), []
    world.facts.subscribe(ExecutionFinished, told.append)

    class Held:
        async def run(self, program: Any, inputs: Any, parameters: Any, call: CallContext, *_: Any) -> Answer:
            assert call.waiting is not None and call.held is not None
            call.calls.append(replace(line("main"), latency_ms=answered_ms))
            world.clock.advance(2.0)
            with call.waiting.one():
                with call.held.one():
                    world.clock.advance(3.0)
                world.clock.advance(2.0)
            return Answer({"b": 0.5}, 10, ())

    world.service._pools = Held()  # type: ignore[assignment]
    execution = await world.predict(runnable(run=program(repeatable=True)), keeper=Keeper())
    assert (execution.duration_ms, execution.overhead_ms) == (took_ms, max(took_ms - answered_ms, 0.0))
    assert [one.pool_s for one in told] == [2.0]
