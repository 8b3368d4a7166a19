"""What a start makes of the file's programs, and of what answers already, over stores in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from dspex.access.audit import Audit
from dspex.application.declaring import check, declare
from dspex.application.origin import Origin, origin_of
from dspex.application.source import Source
from dspex.configuration.settings import ProgramEntry, Settings
from dspex.jobs.records import Job
from dspex.kit.errors import Conflict, Invalid, Unavailable
from dspex.kit.facts import Facts
from dspex.programs.definitions import define
from dspex.programs.ports import Refused
from dspex.programs.python_signatures import PythonSignatures
from dspex.programs.records import Deployment, Program, ProgramSettings, Version
from dspex.programs.service import ProgramService
from dspex.providers.memory.access import MemoryAudit
from dspex.providers.memory.programs import MemoryPrograms
from tests.clock import FakeClock
from tests.unit.programs.compiling import DOCUMENT, LM, Compiler, upgrade

AWAY = Unavailable("DSPy is not installed here.", code="no_compiler")
Logged = list[Any]


class Store(MemoryPrograms):
    """The process ends before or after the next deployment."""

    def __init__(self) -> None:
        super().__init__()
        self.dies: str | None = None

    async def deploy(
        self, program: Program, version: Version, deployment: Deployment, *, by: Job | None = None
    ) -> None:
        dies, self.dies = self.dies, None
        if dies == "before":
            raise KeyboardInterrupt
        await super().deploy(program, version, deployment, by=by)
        if dies == "after":
            raise KeyboardInterrupt


class Reader:
    """Reads a signature class as one with an output of its name."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.refuses = ""

    async def signatures(self, references: Sequence[str]) -> list[Mapping[str, Any] | Refused]:
        self.read += references
        if self.refuses:
            return [Refused(self.refuses) for _ in references]
        return [
            {"inputs": [{"name": "q"}], "outputs": [{"name": one.partition(":")[2].lower()}]}
            for one in references
        ]


class Node:
    """One database, started on again and again."""

    def __init__(self) -> None:
        self.store = Store()
        self.compiler = Compiler()
        self.clock = FakeClock()
        self.reader = Reader()
        self.roots: tuple[Path, ...] = ()
        self.origin = Origin(Path())
        self.programs = ProgramService(self.store, self.compiler, self.clock, Facts())

    async def start(self, **declared: Any) -> Logged:
        """With these programs in the file, by name: a signature, or an entry."""
        entries = tuple(
            ProgramEntry(name=name, **({"signature": one} if isinstance(one, str) else one))
            for name, one in declared.items()
        )
        self.clock.advance(60)
        with structlog.testing.capture_logs() as logged:
            signatures = PythonSignatures(self.store, self.reader, self.clock)
            settings = Settings(programs=entries, code_paths=self.roots)
            wanted = await check(self.programs, signatures, settings, "default", self.origin)
            await declare(self.programs, wanted, "default", self.origin, Audit(MemoryAudit(), FakeClock()))
        return list(logged)

    async def made(self, project: str, name: str, signature: str) -> None:
        """By the API, and deployed."""
        _, version = await self.programs.create(
            project,
            name,
            define(signature, "predict", "chat", LM),
            settings=ProgramSettings(),
            source="api",
        )
        await self.programs.initialize([version])
        await self.deploy(1, project, name)

    async def deploy(self, number: int, project: str = "default", name: str = "qa") -> None:
        self.clock.advance(60)
        program = await self.programs.get(project, name)
        version = await self.programs.version_numbered(program, number)
        if await self.programs.unready([version]):
            (version,) = await self.programs.initialize([version])
        await self.programs.deploy(program, version)

    async def roll_back(self) -> None:
        self.clock.advance(60)
        await self.programs.rollback(await self.programs.get("default", "qa"))

    async def answering(self, project: str = "default", name: str = "qa") -> Version:
        return await self.programs.current(await self.programs.get(project, name))


@pytest.fixture
def node() -> Node:
    return Node()


def not_ready(logged: Logged) -> list[tuple[str, str, int, str]]:
    return [
        (one["project"], one["program"], one["version"], one["reason"])
        for one in logged
        if one["event"] == "program_not_ready"
    ]


async def test_after_an_upgrade_all_that_answers_is_compiled_for_the_new_release(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.start(qa="q -> a")
    await node.start(qa="q -> b")
    await node.roll_back()
    await node.made("default", "facts", "text -> facts")
    await node.made("other", "facts", "text -> more")
    await node.made("default", "gone", "text -> gone")
    await node.programs.archive(await node.programs.get("default", "gone"))
    node.compiler.runs.clear()
    upgrade(monkeypatch, "next")
    assert not_ready(await node.start(qa="q -> b")) == []
    # The operator's version and the file's, and one each of the API's.
    assert node.compiler.runs == [4]
    answering = [
        await node.answering(project, name)
        for project, name in (("default", "qa"), ("default", "facts"), ("other", "facts"))
    ]
    assert [one.number for one in answering] == [1, 1, 1]
    assert await node.programs.unready(answering) == []
    await node.start(qa="q -> b")
    assert node.compiler.runs == [4]


async def test_a_new_release_leaves_the_nodes_of_the_old_one_what_they_run_on(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.start(qa="q -> a")
    await node.made("default", "facts", "text -> facts")
    with monkeypatch.context() as patch:
        upgrade(patch, "next")
        await node.start(qa="q -> a")
    runs = list(node.compiler.runs)
    versions = [await node.answering(), await node.answering(name="facts")]
    assert await node.programs.unready(versions) == []
    assert await node.start(qa="q -> a") == []
    upgrade(monkeypatch, "next")
    assert await node.start(qa="q -> a") == []
    assert node.compiler.runs == runs


@pytest.mark.parametrize("outcome", [Refused("too strange"), AWAY])
async def test_what_a_new_release_cannot_compile_is_told_and_stays_as_it_was(
    node: Node, monkeypatch: pytest.MonkeyPatch, outcome: Refused | Unavailable
) -> None:
    await node.start(qa="q -> a")
    await node.made("other", "facts", "text -> facts")
    reason = outcome.reason if isinstance(outcome, Refused) else outcome.message
    upgrade(monkeypatch, "next")
    node.compiler.outcome = outcome
    for _ in range(2):
        assert sorted(not_ready(await node.start(qa="q -> a"))) == [
            ("default", "qa", 1, reason),
            ("other", "facts", 1, reason),
        ]
    assert ((await node.answering()).status, (await node.answering()).error) == ("deployed", reason)
    node.compiler.outcome = DOCUMENT
    assert not_ready(await node.start(qa="q -> a")) == []
    assert (await node.answering()).error is None
    assert len(await node.programs.history(await node.programs.get("default", "qa"))) == 1


async def test_the_file_does_not_deploy_what_this_release_cannot_run(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.start(qa="q -> a")
    await node.start(qa="q -> b")
    upgrade(monkeypatch, "next")
    node.compiler.outcome = Refused("too strange")
    assert ("default", "qa", 1, "too strange") in not_ready(await node.start(qa="q -> a"))
    assert (await node.answering()).number == 2
    node.compiler.outcome = DOCUMENT
    await node.start(qa="q -> a")
    assert (await node.answering()).number == 1


async def test_a_program_that_cannot_be_compiled_does_not_keep_ready_ones_from_being_deployed(
    node: Node,
) -> None:
    node.compiler.outcome = AWAY
    logged = await node.start(qa="q -> a", fake={"signature": "q -> a", "executor": "mock"})
    assert not_ready(logged) == [("default", "qa", 1, AWAY.message)]
    assert (await node.answering(name="fake")).status == "deployed"
    assert (await node.answering()).status == "error"


async def test_a_rollback_survives_a_restart_though_the_file_had_to_wait_for_its_version(node: Node) -> None:
    await node.start(qa="q -> a")
    node.compiler.outcome = AWAY
    assert len(not_ready(await node.start(qa="q -> b"))) == 1
    assert (await node.answering()).number == 1
    node.compiler.outcome = DOCUMENT
    await node.deploy(2)
    await node.roll_back()
    logged = await node.start(qa="q -> b")
    assert (await node.answering()).number == 1
    assert [one["event"] for one in logged] == ["operators_version_kept"]


async def test_what_the_file_waits_for_is_deployed_by_a_later_start(node: Node) -> None:
    await node.start(qa="q -> a")
    node.compiler.outcome = AWAY
    await node.start(qa="q -> b")
    node.compiler.outcome = DOCUMENT
    await node.start(qa="q -> b")
    assert (await node.answering()).number == 2


async def test_what_an_operator_deploys_while_the_file_waits_stays(node: Node) -> None:
    await node.start(qa="q -> a")
    await node.start(qa="q -> b")
    node.compiler.outcome = AWAY
    await node.start(qa="q -> c")
    await node.deploy(1)
    node.compiler.outcome = DOCUMENT
    await node.start(qa="q -> c")
    assert (await node.answering()).number == 1


@pytest.mark.parametrize("dies", ["before", "after"])
async def test_a_start_that_is_killed_at_the_deployment_is_carried_on_by_the_next(
    node: Node, dies: str
) -> None:
    await node.start(qa="q -> a")
    node.store.dies = dies
    with pytest.raises(KeyboardInterrupt):
        await node.start(qa="q -> b")
    if dies == "before":
        await node.start(qa="q -> b")
    assert (await node.answering()).number == 2
    await node.roll_back()
    await node.start(qa="q -> b")
    assert (await node.answering()).number == 1


async def test_going_back_in_the_file_deploys_what_it_asks_for(node: Node) -> None:
    for signature, number in (("q -> a", 1), ("q -> b", 2), ("q -> a", 1), ("q -> c", 3)):
        await node.start(qa=signature)
        assert (await node.answering()).number == number


async def test_archived_and_put_back_a_program_answers_as_before(node: Node) -> None:
    await node.start(qa="q -> a")
    await node.start()
    assert (await node.programs.get("default", "qa")).archived_at is not None
    await node.start(qa="q -> a")
    assert (await node.programs.get("default", "qa")).archived_at is None
    assert (await node.answering()).status == "deployed"


async def test_a_signature_from_python_is_read_once_for_each_state_of_its_file(tmp_path: Path) -> None:
    node = Node()
    node.roots = (tmp_path,)
    (tmp_path / "shop.py").write_text("# first")
    entry = {"signature": "shop:Answer"}
    await node.start(qa=entry)
    program = await node.programs.get("default", "qa")
    version = await node.programs.current(program)
    assert version.definition.signature["outputs"] == [{"name": "answer"}]
    assert version.status == "deployed"
    await node.start(qa=entry)
    assert node.reader.read == ["shop:Answer"]
    (tmp_path / "shop.py").write_text("# second")
    await node.start(qa=entry)
    assert node.reader.read == ["shop:Answer"] * 2
    assert (await node.programs.current(program)).id == version.id, "it says the same as before"


async def test_a_signature_from_python_that_can_not_be_read_is_a_mistake_in_the_file(tmp_path: Path) -> None:
    node = Node()
    node.roots = (tmp_path,)
    with pytest.raises(Invalid, match=r"Program 'qa' in the configuration: .*There is no module 'shop'"):
        await node.start(qa={"signature": "shop:Answer"})
    (tmp_path / "shop.py").write_text("")
    node.reader.refuses = "The field 'x' is too strange."
    with pytest.raises(Invalid, match="The field 'x' is too strange") as caught:
        await node.start(qa={"signature": "shop:Answer"})
    assert [one.pointer for one in caught.value.problems] == ["/signature"]
    assert not (await node.programs.list("default", include_archived=True, limit=9, cursor=None)).data


async def test_a_file_takes_nothing_away_that_another_one_declared(node: Node, tmp_path: Path) -> None:
    one, other = (Origin(tmp_path, name, tmp_path) for name in ("one.yaml", "other.yaml"))
    node.origin = one
    await node.start(qa="question -> answer", old="a -> b")
    node.origin = other
    told = await node.start(triage="text -> team")
    assert [(it["event"], it["program"], it["file"]) for it in told if it.get("file")] == [
        ("program_of_another_file", "old", "one.yaml"),
        ("program_of_another_file", "qa", "one.yaml"),
    ]
    node.origin = one
    told = await node.start(qa="question -> answer")
    archived = {
        it.name: it.archived_at is not None
        for it in (await node.programs.list("default", include_archived=True, limit=9, cursor=None)).data
    }
    # What it declared itself it takes away as ever.
    assert archived == {"qa": False, "old": True, "triage": False}


async def test_two_files_that_mean_different_things_by_one_name_are_not_both_served(
    node: Node, tmp_path: Path
) -> None:
    one, other = (Origin(tmp_path, name, tmp_path / "data") for name in ("../one.yaml", "../other.yaml"))
    (tmp_path / "one.yaml").touch()
    node.origin = one
    await node.start(qa="question -> answer", same="a -> b")
    node.origin = other
    with pytest.raises(Conflict) as refused:
        await node.start(qa="question -> answer, why", new="a -> b")
    assert refused.value.code == "program_of_another_file"
    assert f"declared by {tmp_path}/one.yaml as well" in refused.value.message
    assert "data_dir" in refused.value.message
    # Nothing was changed: the one answers as before, and the other's are not there.
    assert (await node.answering()).number == 1
    there = (await node.programs.list("default", include_archived=True, limit=9, cursor=None)).data
    assert {it.name for it in there} == {"qa", "same"}
    # The same by the same name harms nobody.
    await node.start(same="a -> b")
    # A file that is gone, or was given another name, has a successor.
    (tmp_path / "one.yaml").rename(tmp_path / "other.yaml")
    await node.start(qa="question -> answer, why", same="a -> b")
    assert (await node.answering()).number == 2


@pytest.mark.parametrize("name", ["adhoc", "embeddings", "optimizations"])
async def test_a_file_with_a_reserved_name_changes_nothing(node: Node, name: str) -> None:
    await node.start(qa="q -> a", old="a -> b")
    with pytest.raises(Conflict) as refused:
        await node.start(qa={"signature": "q -> b", "timeout_s": 7}, **{name: "a -> b"})
    assert refused.value.code == "reserved_name"
    program = await node.programs.get("default", "qa")
    assert program.settings.timeout_s is None
    assert (await node.programs.newest(program)).number == 1
    assert (await node.programs.get("default", "old")).archived_at is None


async def test_programs_of_before_files_were_remembered_are_the_files(node: Node) -> None:
    await node.start(qa="question -> answer", old="a -> b")
    for name in ("qa", "old"):
        program = await node.programs.get("default", name)
        await node.programs.change(replace(program, settings=replace(program.settings, declared_in=None)))
    node.origin = Origin(Path(), "dspex.yaml")
    await node.start(qa="question -> answer, why")
    assert (await node.answering()).number == 2
    assert (await node.programs.get("default", "old")).archived_at is not None


def test_a_file_is_named_from_its_database_so_that_both_can_be_moved(tmp_path: Path) -> None:
    source = Source(None, {}, tmp_path, tmp_path / "dspex.yaml")
    local = Settings(data_dir=tmp_path / ".dspex")
    assert origin_of(source, local) == Origin(tmp_path, "../dspex.yaml", tmp_path / ".dspex")
    assert origin_of(source, local).place_of("../dspex.yaml") == tmp_path / "dspex.yaml"
    shared = Settings(database_url="postgresql://localhost/test")
    assert origin_of(source, shared).name == str(tmp_path / "dspex.yaml")
    assert origin_of(Source(None, {}, Path()), local).name == ""
