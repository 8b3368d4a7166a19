"""Programs over stores in memory and a compiler that does as it is told."""

import asyncio
from collections.abc import Sequence

import pytest

from dspex.kit.clock import SystemClock
from dspex.kit.errors import Conflict, Exhausted, Invalid, Unavailable
from dspex.kit.facts import Facts
from dspex.programs.definitions import define
from dspex.programs.facts import ProgramChanged
from dspex.programs.ports import Compiled, Refused
from dspex.programs.records import Definition, LanguageModelChoice, Program, ProgramSettings, Version
from dspex.programs.service import ADHOC_QUEUE, ProgramService
from dspex.providers.memory.programs import MemoryPrograms

LM = LanguageModelChoice("main", "openai/gpt-4o-mini", {})
DOCUMENT = Compiled({"v": 1}, {"demos": []})


class Compiler:
    """Counts its runs; holds them back while `gate` is closed."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.outcome: Compiled | Refused | Exception = DOCUMENT
        self.gate = asyncio.Event()
        self.gate.set()

    async def compile(self, definitions: Sequence[Definition]) -> list[Compiled | Refused]:
        self.runs.append(len(definitions))
        await self.gate.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return [self.outcome for _ in definitions]


@pytest.fixture
def compiler() -> Compiler:
    return Compiler()


@pytest.fixture
def facts() -> Facts:
    return Facts()


@pytest.fixture
def programs(compiler: Compiler, facts: Facts) -> ProgramService:
    return ProgramService(MemoryPrograms(), compiler, SystemClock(), facts)


async def made(programs: ProgramService, name: str, signature: str = "a -> b") -> tuple[Program, Version]:
    definition = define(signature, "predict", "chat", LM)
    return await programs.create("default", name, definition, settings=ProgramSettings(), source="api")


async def test_many_versions_compile_in_one_run_and_known_ones_not_at_all(
    programs: ProgramService, compiler: Compiler
) -> None:
    versions = [(await made(programs, name, f"{name} -> b"))[1] for name in ("one", "two", "three")]
    ready = await programs.initialize(versions)
    assert [one.status for one in ready] == ["ready"] * 3
    assert [one.executor for one in ready] == ["native"] * 3
    assert compiler.runs == [3]
    _, again = await made(programs, "four", "one -> b")
    (ready_again,) = await programs.initialize([again])
    assert ready_again.status == "ready"
    assert compiler.runs == [3]


async def test_a_refusal_is_kept_with_the_version_and_can_be_tried_again(
    programs: ProgramService, compiler: Compiler
) -> None:
    compiler.outcome = Refused("too strange")
    program, version = await made(programs, "qa")
    (failed,) = await programs.initialize([version])
    assert (failed.status, failed.error) == ("error", "too strange")
    with pytest.raises(Conflict, match="too strange"):
        await programs.deploy(program, failed)
    compiler.outcome = DOCUMENT
    (ready,) = await programs.initialize([failed])
    assert (ready.status, ready.error) == ("ready", None)


async def test_without_a_compiler_versions_say_why(programs: ProgramService, compiler: Compiler) -> None:
    compiler.outcome = Unavailable("DSPy is not installed here.")
    program, version = await made(programs, "qa")
    with pytest.raises(Unavailable):
        await programs.initialize([version])
    after = await programs.version_numbered(program, 1)
    assert (after.status, after.error) == ("error", "DSPy is not installed here.")


async def test_two_nodes_that_start_together_both_succeed(
    programs: ProgramService, compiler: Compiler
) -> None:
    program, version = await made(programs, "qa")
    results = await asyncio.gather(programs.initialize([version]), programs.initialize([version]))
    assert [one.status for (one,) in results] == ["ready", "ready"]
    assert (await programs.version_numbered(program, 1)).status == "ready"


async def test_a_missing_compiler_does_not_keep_mocks_from_running(
    programs: ProgramService, compiler: Compiler
) -> None:
    compiler.outcome = Unavailable("DSPy is not installed here.")
    _, native = await made(programs, "qa")
    fake, mock = await programs.create(
        "default",
        "fake",
        define("a -> b", "predict", "chat", LM, mock={}),
        settings=ProgramSettings(),
        source="api",
    )
    with pytest.raises(Unavailable):
        await programs.initialize([native, mock])
    assert (await programs.version_numbered(fake, 1)).status == "ready"


async def test_a_mock_needs_no_compiler(programs: ProgramService, compiler: Compiler) -> None:
    definition = define("a -> b", "predict", "chat", LM, mock={})
    _, version = await programs.create(
        "default", "fake", definition, settings=ProgramSettings(), source="api"
    )
    (ready,) = await programs.initialize([version])
    assert (ready.status, ready.executor, compiler.runs) == ("ready", "mock", [])


async def test_a_version_that_another_node_left_initializing_can_be_taken_up(
    programs: ProgramService, compiler: Compiler
) -> None:
    program, version = await made(programs, "qa")
    compiler.gate.clear()
    dying = asyncio.create_task(programs.initialize([version]))
    while not compiler.runs:
        await asyncio.sleep(0)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    compiler.gate.set()
    stuck = await programs.version_numbered(program, 1)
    assert stuck.status == "initializing"
    (ready,) = await programs.initialize([stuck])
    assert ready.status == "ready"


async def test_deploy_and_roll_back_are_announced(programs: ProgramService, facts: Facts) -> None:
    announced: list[ProgramChanged] = []
    facts.subscribe(ProgramChanged, announced.append)
    program, first = await made(programs, "qa")
    (first,) = await programs.initialize([first])
    program = await programs.deploy(program, first)
    second = await programs.add_version(program, define("a -> c", "predict", "chat", LM))
    (second,) = await programs.initialize([second])
    program = await programs.deploy(program, second)
    program, back = await programs.rollback(program)
    assert back.number == 1
    assert program.deployed_version_id == first.id
    assert announced == [ProgramChanged("default", "qa")] * 3
    with pytest.raises(Conflict) as refused:
        await programs.rollback(program)
    assert refused.value.code == "nothing_to_roll_back"


async def test_every_deployment_can_be_rolled_back(programs: ProgramService) -> None:
    program, first = await made(programs, "qa")
    second = await programs.add_version(program, define("a -> c", "predict", "chat", LM))
    both = await programs.initialize([first, second])
    for step in range(150):
        version = await programs.version_numbered(program, 1 + step % 2)
        program = await programs.deploy(program, version)
    back = []
    for _ in range(149):
        program, version = await programs.rollback(program)
        back.append(version.number)
    assert back == [1 + step % 2 for step in reversed(range(149))]
    assert program.deployed_version_id == both[0].id
    with pytest.raises(Conflict):
        await programs.rollback(program)


async def test_the_same_definition_is_the_same_version(programs: ProgramService) -> None:
    program, version = await made(programs, "qa")
    again = await programs.add_version(program, define("a->b", "predict", "chat", LM))
    assert again.id == version.id


async def test_one_signature_asked_for_by_many_compiles_once(
    programs: ProgramService, compiler: Compiler
) -> None:
    definition = define("a -> b", "predict", "chat", LM)
    compiled = await asyncio.gather(*(programs.compile_adhoc("default", definition) for _ in range(20)))
    assert len({one.digest for one in compiled}) == 1
    assert compiler.runs == [1]
    await programs.compile_adhoc("default", definition)
    assert compiler.runs == [1]


async def test_the_first_caller_leaving_does_not_fail_the_others(
    programs: ProgramService, compiler: Compiler
) -> None:
    definition = define("a -> b", "predict", "chat", LM)
    compiler.gate.clear()
    leaving = asyncio.create_task(programs.compile_adhoc("default", definition))
    staying = asyncio.create_task(programs.compile_adhoc("default", definition))
    while not compiler.runs:
        await asyncio.sleep(0)
    leaving.cancel()
    compiler.gate.set()
    assert (await staying).document == {"v": 1}


async def test_a_queue_of_signatures_has_an_end(programs: ProgramService, compiler: Compiler) -> None:
    compiler.gate.clear()
    waiting = [
        asyncio.create_task(programs.compile_adhoc("default", define(f"a{n} -> b", "predict", "chat", LM)))
        for n in range(ADHOC_QUEUE)
    ]
    while len(compiler.runs) < ADHOC_QUEUE:
        await asyncio.sleep(0)
    with pytest.raises(Exhausted) as refused:
        await programs.compile_adhoc("default", define("one_more -> b", "predict", "chat", LM))
    assert refused.value.retry_after
    compiler.gate.set()
    await asyncio.gather(*waiting)


async def test_a_refused_signature_is_invalid_with_the_reason(
    programs: ProgramService, compiler: Compiler
) -> None:
    compiler.outcome = Refused("mistral goes through LiteLLM")
    with pytest.raises(Invalid, match="mistral goes through LiteLLM"):
        await programs.compile_adhoc("default", define("a -> b", "predict", "chat", LM))
