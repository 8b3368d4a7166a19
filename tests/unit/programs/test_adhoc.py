"""Definitions without a program: compiled once, whoever asks."""

import asyncio

import pytest

from dspex.kit.clock import SystemClock
from dspex.kit.errors import Exhausted, Invalid, TimedOut, Unavailable
from dspex.programs.adhoc import QUEUE, TOO_LONG_KEPT_S, AdhocCompiling
from dspex.programs.definitions import define
from dspex.programs.ports import Refused
from dspex.programs.records import Definition
from dspex.providers.memory.programs import MemoryPrograms
from tests.clock import FakeClock
from tests.unit.programs.compiling import LM, Compiler


@pytest.fixture
def compiler() -> Compiler:
    return Compiler()


@pytest.fixture
def compiling(compiler: Compiler) -> AdhocCompiling:
    return AdhocCompiling(MemoryPrograms(), compiler, SystemClock())


async def test_one_signature_asked_for_by_many_compiles_once(
    compiling: AdhocCompiling, compiler: Compiler
) -> None:
    definition = define("a -> b", "predict", "chat", LM)
    compiled = await asyncio.gather(*(compiling.compile("default", definition) for _ in range(20)))
    assert len({one.digest for one in compiled}) == 1
    assert compiler.runs == [1]
    await compiling.compile("default", definition)
    assert compiler.runs == [1]


async def test_the_first_caller_leaving_does_not_fail_the_others(
    compiling: AdhocCompiling, compiler: Compiler
) -> None:
    definition = define("a -> b", "predict", "chat", LM)
    compiler.gate.clear()
    leaving = asyncio.create_task(compiling.compile("default", definition))
    staying = asyncio.create_task(compiling.compile("default", definition))
    while not compiler.runs:
        await asyncio.sleep(0)
    leaving.cancel()
    compiler.gate.set()
    assert (await staying).document == {"v": 1}


def signatures(count: int, prefix: str = "a") -> list[Definition]:
    return [define(f"{prefix}{n} -> b", "predict", "chat", LM) for n in range(count)]


async def test_those_who_ask_together_share_a_worker(compiling: AdhocCompiling, compiler: Compiler) -> None:
    compiled = await asyncio.gather(*(compiling.compile("default", one) for one in signatures(10)))
    assert len({one.digest for one in compiled}) == 10
    assert compiler.runs == [10]


async def test_a_storm_never_takes_more_than_two_workers(
    compiling: AdhocCompiling, compiler: Compiler
) -> None:
    compiler.gate.clear()
    first = [asyncio.create_task(compiling.compile("default", one)) for one in signatures(1, "first")]
    await compiler.busy(1)
    second = [asyncio.create_task(compiling.compile("default", one)) for one in signatures(1, "second")]
    await compiler.busy(2)
    rest = [asyncio.create_task(compiling.compile("default", one)) for one in signatures(40)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert compiler.runs == [1, 1]
    compiler.gate.set()
    await asyncio.gather(*first, *second, *rest)
    assert sorted(compiler.runs) == [1, 1, 8, 16, 16]


async def test_what_nobody_waits_for_any_more_is_not_compiled(
    compiling: AdhocCompiling, compiler: Compiler
) -> None:
    compiler.gate.clear()
    busy = []
    for number in range(2):
        busy.append(asyncio.create_task(compiling.compile("default", signatures(1, f"busy{number}_")[0])))
        await compiler.busy(number + 1)
    leaving = [asyncio.create_task(compiling.compile("default", one)) for one in signatures(QUEUE)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    staying = asyncio.create_task(compiling.compile("default", signatures(1, "stays")[0]))
    await asyncio.sleep(0)
    compiler.gate.set()
    await asyncio.gather(*busy, staying)
    assert compiler.runs == [1, 1, 1]


async def test_one_that_takes_too_long_fails_alone_and_is_not_tried_again_at_once(
    compiler: Compiler,
) -> None:
    clock = FakeClock()
    compiling = AdhocCompiling(MemoryPrograms(), compiler, clock)
    guilty, *innocent = signatures(4)
    compiler.too_slow = guilty
    outcomes = await asyncio.gather(
        *(compiling.compile("default", one) for one in (guilty, *innocent)), return_exceptions=True
    )
    assert [type(one).__name__ for one in outcomes] == ["TimedOut", *["CompiledDocument"] * 3]
    runs = len(compiler.runs)
    with pytest.raises(TimedOut):
        await compiling.compile("default", guilty)
    assert len(compiler.runs) == runs
    clock.advance(TOO_LONG_KEPT_S + 1)
    compiler.too_slow = None
    assert await compiling.compile("default", guilty)


async def test_without_a_compiler_everybody_is_told(compiling: AdhocCompiling, compiler: Compiler) -> None:
    compiler.outcome = Unavailable("DSPy is not installed here.", code="no_compiler")
    outcomes = await asyncio.gather(
        *(compiling.compile("default", one) for one in signatures(3)), return_exceptions=True
    )
    assert [getattr(one, "code", None) for one in outcomes] == ["no_compiler"] * 3
    assert compiler.runs == [3]


async def test_a_queue_of_signatures_has_an_end(compiling: AdhocCompiling, compiler: Compiler) -> None:
    compiler.gate.clear()
    busy = []
    for number in range(2):
        busy.append(asyncio.create_task(compiling.compile("default", signatures(1, f"busy{number}_")[0])))
        await compiler.busy(number + 1)
    waiting = [asyncio.create_task(compiling.compile("default", one)) for one in signatures(QUEUE)]
    for _ in range(5):
        await asyncio.sleep(0)
    with pytest.raises(Exhausted) as refused:
        await compiling.compile("default", define("one_more -> b", "predict", "chat", LM))
    assert refused.value.retry_after
    compiler.gate.set()
    await asyncio.gather(*busy, *waiting)


async def test_a_refused_signature_is_invalid_with_the_reason_and_not_tried_again(
    compiling: AdhocCompiling, compiler: Compiler
) -> None:
    compiler.outcome = Refused("mistral goes through LiteLLM")
    for _ in range(2):
        with pytest.raises(Invalid, match="mistral goes through LiteLLM"):
            await compiling.compile("default", define("a -> b", "predict", "chat", LM))
    assert compiler.runs == [1]
