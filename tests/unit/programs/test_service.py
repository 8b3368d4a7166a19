"""Programs over stores in memory and a compiler that does as it is told."""

import asyncio
from collections.abc import Sequence

import pytest

from dspex.kit.clock import SystemClock
from dspex.kit.errors import Conflict, Invalid, Unavailable
from dspex.kit.facts import Facts
from dspex.programs.definitions import define
from dspex.programs.facts import ProgramChanged
from dspex.programs.ports import Refused
from dspex.programs.records import Program, ProgramSettings, Version
from dspex.programs.service import ProgramService
from dspex.providers.memory.programs import MemoryPrograms
from tests.unit.programs.compiling import DOCUMENT, LM, Compiler, upgrade


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


async def test_a_version_whose_code_is_not_here_is_not_deployed_nor_rolled_back_to() -> None:
    on_disk = ["old"]

    def digest(references: Sequence[str]) -> str:
        assert references == ["desk:Own"]
        if not on_disk:
            raise Invalid("There is no module 'desk'.", code="bad_reference")
        return on_disk[-1]

    programs = ProgramService(MemoryPrograms(), Compiler(), SystemClock(), Facts(), digest)
    definition = define("a -> b", "desk:Own", "chat", LM, code=digest)
    program, old = await programs.create(
        "default", "own", definition, settings=ProgramSettings(), source="api"
    )
    (old,) = await programs.initialize([old])
    program = await programs.deploy(program, old)
    on_disk.append("new")
    new = await programs.add_version(program, define("a -> b", "desk:Own", "chat", LM, code=digest))
    (new,) = await programs.initialize([new])
    program = await programs.deploy(program, new)
    for gone in (on_disk, []):
        on_disk = [*gone]
        with pytest.raises(Conflict, match="Version 1 of 'own' was made of other code") as refused:
            await programs.rollback(program)
        assert refused.value.code == "code_changed"
        assert (await programs.get("default", "own")).deployed_version_id == new.id
    with pytest.raises(Conflict, match="other code"):
        await programs.deploy(program, old, force=True)
    on_disk = ["old"]
    program, back = await programs.rollback(program)
    assert (back.number, program.deployed_version_id) == (1, old.id)


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


async def test_a_definition_that_kills_the_compiler_does_not_keep_others_from_running(
    programs: ProgramService, compiler: Compiler
) -> None:
    versions = [(await made(programs, f"p{number}", f"a{number} -> b"))[1] for number in range(10)]
    compiler.deadly = versions[6].definition
    with pytest.raises(Unavailable, match="-11"):
        await programs.initialize(versions)
    after = [await programs.version("default", one.id) for one in versions]
    assert [one.status for one in after] == ["ready"] * 6 + ["error"] + ["ready"] * 3
    assert after[6].error == "The compiler ended with status -11."
    assert len(compiler.runs) < 10


async def two_deployed_one_after_the_other(programs: ProgramService) -> Program:
    program, first = await made(programs, "qa")
    second = await programs.add_version(program, define("a -> c", "predict", "chat", LM))
    for version in await programs.initialize([first, second]):
        program = await programs.deploy(program, version)
    return program


@pytest.mark.parametrize("rollback", [True, False])
async def test_what_another_release_compiled_is_compiled_before_it_is_deployed(
    programs: ProgramService, compiler: Compiler, monkeypatch: pytest.MonkeyPatch, rollback: bool
) -> None:
    program = await two_deployed_one_after_the_other(programs)
    upgrade(monkeypatch, "next")
    first = await programs.version_numbered(program, 1)
    assert await programs.unready([first]) == [first]
    if rollback:
        program, _ = await programs.rollback(program)
    else:
        program = await programs.deploy(program, first)
    assert program.deployed_version_id == first.id
    assert await programs.unready([await programs.version_numbered(program, 1)]) == []
    assert compiler.runs == [2, 1]


@pytest.mark.parametrize("outcome", [Refused("too strange"), Unavailable("DSPy is not installed here.")])
async def test_what_this_release_cannot_compile_is_not_deployed(
    programs: ProgramService,
    compiler: Compiler,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Refused | Unavailable,
) -> None:
    program = await two_deployed_one_after_the_other(programs)
    upgrade(monkeypatch, "next")
    compiler.outcome = outcome
    expected = Conflict if isinstance(outcome, Refused) else Unavailable
    with pytest.raises(expected, match=r"too strange|not installed"):
        await programs.rollback(program)
    assert (await programs.get("default", "qa")).deployed_version_id == program.deployed_version_id
    # Nodes of the other release can still run it.
    assert (await programs.version_numbered(program, 1)).status == "ready"


async def test_releases_side_by_side_keep_each_their_document(
    programs: ProgramService, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, version = await made(programs, "qa")
    with monkeypatch.context() as patch:
        upgrade(patch, "next")
        await programs.initialize([version])
    version = await programs.version_numbered(program, 1)
    assert await programs.unready([version]) == [version]
    (version,) = await programs.initialize([version])
    assert await programs.unready([version]) == []
    upgrade(monkeypatch, "next")
    assert await programs.unready([version]) == []
    assert compiler.runs == [1, 1]


async def test_an_import_that_cannot_run_leaves_no_version(
    programs: ProgramService, compiler: Compiler
) -> None:
    program, base = await made(programs, "qa")
    saved = {"demos": [{"a": 1}], "signature": {"instructions": "Do.", "fields": []}}
    for outcome in (Refused("too strange"), Unavailable("DSPy is not installed here.")):
        compiler.outcome = outcome
        with pytest.raises((Invalid, Unavailable), match=r"too strange|not installed"):
            await programs.import_state(program, saved, base=base)
        assert (await programs.newest(program)).number == 1
    compiler.outcome = DOCUMENT
    version, _ = await programs.import_state(program, saved, base=base)
    assert (version.number, version.status) == (2, "ready")
    assert compiler.runs == [1, 1, 1]
