"""Use cases around programs: register, initialize, deploy, roll back, archive, compare, move."""

import asyncio
import builtins
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from dspex.jobs.records import Job
from dspex.kit.clock import Clock
from dspex.kit.errors import Conflict, Invalid, Missing
from dspex.kit.facts import Facts
from dspex.kit.ids import new_id
from dspex.kit.paging import MAX_LIMIT, Page
from dspex.programs.comparison import Comparison, compare
from dspex.programs.definitions import CodeDigest, contract_of
from dspex.programs.facts import ProgramChanged
from dspex.programs.gating import check_gates, measured_by_lineage
from dspex.programs.initializing import Initializing
from dspex.programs.kinds import references_of
from dspex.programs.pipelines.states import joined
from dspex.programs.ports import Compiler, ProgramStore
from dspex.programs.records import (
    COMPOSED,
    EXECUTABLE,
    Definition,
    Deployment,
    Measured,
    Program,
    ProgramSettings,
    ProgramStatus,
    Showing,
    Source,
    Version,
)
from dspex.programs.rules import (
    check_live,
    check_name,
    definition_digest,
    is_name,
    previous_deployment,
    program_status,
)
from dspex.programs.transfer import imported_pipeline_state, imported_state
from dspex.signatures.records import Signature


class ProgramService(Initializing):
    """`code` is the digest of users' code as it is here now; without it no version's code is looked at."""

    def __init__(
        self,
        store: ProgramStore,
        compiler: Compiler,
        clock: Clock,
        facts: Facts,
        code: CodeDigest | None = None,
    ) -> None:
        super().__init__(store, compiler, clock)
        self._facts = facts
        self._code = code

    async def get(self, project: str, name: str) -> Program:
        """Raises Missing (code program_missing)."""
        program = await self._store.get(project, name) if is_name(name) else None
        if program is None:
            raise Missing(f"There is no program {name!r}.", code="program_missing")
        return program

    async def list(
        self, project: str, *, include_archived: bool, limit: int, cursor: str | None
    ) -> Page[Program]:
        return await self._store.list(project, include_archived=include_archived, limit=limit, cursor=cursor)

    async def statuses(self, project: str, programs: Sequence[Program]) -> dict[str, ProgramStatus]:
        """Each program's derived status, by program id."""
        found = await self._store.version_statuses(project, [program.id for program in programs])
        return {program.id: program_status(program, found.get(program.id, ())) for program in programs}

    async def create(
        self,
        project: str,
        name: str,
        definition: Definition,
        *,
        settings: ProgramSettings,
        source: Source,
        description: str | None = None,
    ) -> tuple[Program, Version]:
        """A new program with its first version, a draft. Raises Conflict when the name is taken or reserved."""
        check_name(name)
        now = self._clock.now()
        program = Program(new_id(), project, name, source, settings, now, now, description)
        version = replace(self._draft(program, definition), number=1)
        await self._store.add(program, version)
        return program, version

    async def add_version(
        self,
        program: Program,
        definition: Definition,
        *,
        parent_id: str | None = None,
        lineage: Mapping[str, Any] | None = None,
    ) -> Version:
        """The version of this definition: the one that is there, or a new draft.

        Raises Conflict (code program_archived).
        """
        check_live(program)
        existing = await self._store.version_by_digest(
            program.project, program.id, definition_digest(definition)
        )
        return existing or await self._store.add_version(self._draft(program, definition, parent_id, lineage))

    def _draft(
        self,
        program: Program,
        definition: Definition,
        parent_id: str | None = None,
        lineage: Mapping[str, Any] | None = None,
    ) -> Version:
        return Version(
            id=new_id(),
            project=program.project,
            program_id=program.id,
            number=0,
            digest=definition_digest(definition),
            definition=definition,
            status="draft",
            created_at=self._clock.now(),
            parent_id=parent_id,
            lineage=lineage,
        )

    async def deploy(
        self,
        program: Program,
        version: Version,
        *,
        rollback: bool = False,
        force: bool = False,
        measured: Measured | None = None,
        by: Job | None = None,
    ) -> Program:
        """Makes this version the one that answers; one that only other releases could run is compiled first.

        The program's gates look at what was `measured`, else at the version's lineage. They do not hold for what
        answers first, for what answered before, and by `force`. Raises Conflict when it can't run (code
        not_executable), a gate is not met (gate_not_met), its code is not here any more (code_changed), the program is
        archived, or the job `by` which it is done was taken away (job_state), and as `initialize` when it has to be
        compiled.
        """
        check_live(program)
        if not (rollback or force or program.deployed_version_id in (None, version.id)):
            check_gates(program, version, measured or measured_by_lineage(version))
        if version.status not in EXECUTABLE:
            raise Conflict(
                f"Version {version.number} of {program.name!r} is {version.status}"
                + (f" ({version.error})" if version.error else "")
                + "; initialize it first.",
                code="not_executable",
            )
        unready = await self.unready([version])
        if unready and (refused := await self.unready(await self.initialize(unready))):
            raise Conflict(
                f"Version {version.number} of {program.name!r} was compiled by another release, and this one can't: "
                f"{refused[0].error}",
                code="not_executable",
            )
        if program.deployed_version_id == version.id:
            return program
        await asyncio.to_thread(self._check_code, program, version)
        deployment = Deployment(
            new_id(),
            program.project,
            program.id,
            version.id,
            "rollback" if rollback else "deploy",
            self._clock.now(),
        )
        await self._store.deploy(program, version, deployment, by=by)
        self._facts.announce(ProgramChanged(program.project, program.name))
        return replace(program, deployed_version_id=version.id)

    def _check_code(self, program: Program, version: Version) -> None:
        """Raises Conflict for a version that would answer every request with just that."""
        wanted, references = version.definition.code, references_of(version.definition.config)
        if wanted is None or self._code is None:
            return
        try:
            found = self._code(references)
        except Invalid:
            found = ""
        if found != wanted:
            raise Conflict(
                f"Version {version.number} of {program.name!r} was made of other code ({', '.join(references)}) than "
                "is on disk, and could not run. Check that code out, then deploy it; of a program in the file "
                "`dspex reload` deploys it.",
                code="code_changed",
            )

    async def rollback(self, program: Program) -> tuple[Program, Version]:
        """Deploys again what was deployed before the present version. Raises Conflict when there is nothing."""
        target = previous_deployment(await self.history(program))
        version = await self._store.version(program.project, target) if target else None
        if version is None:
            raise Conflict(
                f"{program.name!r} has no earlier deployment to go back to.", code="nothing_to_roll_back"
            )
        return await self.deploy(program, version, rollback=True), version

    async def history(self, program: Program) -> Sequence[Deployment]:
        """Its deployments, newest first."""
        return await self._store.deployments(program.project, program.id)

    async def archive(self, program: Program) -> Program:
        """Takes the program out of service; its versions and executions stay. Archived twice is a Conflict."""
        check_live(program)
        now = self._clock.now()
        archived = replace(program, archived_at=now, updated_at=now)
        await self._store.update(archived)
        self._facts.announce(ProgramChanged(program.project, program.name))
        return archived

    async def change(self, program: Program) -> Program:
        """Stores changed settings, description or source."""
        changed = replace(program, updated_at=self._clock.now())
        await self._store.update(changed)
        self._facts.announce(ProgramChanged(program.project, program.name))
        return changed

    async def deployed(self) -> Sequence[tuple[str, Version]]:
        """What answers at the moment, in all projects: the programs' names and their versions."""
        return await self._store.deployed()

    async def version(self, project: str, version_id: str) -> Version:
        """Raises Missing (code version_missing)."""
        version = await self._store.version(project, version_id)
        if version is None:
            raise Missing("There is no such version.", code="version_missing")
        return version

    async def version_numbered(self, program: Program, number: int) -> Version:
        """Raises Missing (code version_missing)."""
        version = await self._store.version_by_number(program.project, program.id, number)
        if version is None:
            raise Missing(f"{program.name!r} has no version {number}.", code="version_missing")
        return version

    async def beside(self, version: Version, numbers: Iterable[int]) -> builtins.list[Version]:
        """Other versions of its program, by their numbers. Raises Missing (code version_missing)."""
        found = []
        for number in numbers:
            one = await self._store.version_by_number(version.project, version.program_id, number)
            if one is None:
                raise Missing(f"The program has no version {number}.", code="version_missing")
            found.append(one)
        return found

    async def version_declared(self, program: Program) -> Version | None:
        """The version that a configuration file asks for; None for a program of the API."""
        digest = program.settings.declared
        if digest is None:
            return None
        return await self._store.version_by_digest(program.project, program.id, digest)

    async def number_deployed(self, program: Program) -> int | None:
        """Of the version that answers; None where none does."""
        deployed = program.deployed_version_id
        version = await self._store.version(program.project, deployed) if deployed else None
        return None if version is None else version.number

    async def newest(self, program: Program) -> Version:
        """Every program has at least one version."""
        (version,) = (await self.versions(program, limit=1, cursor=None)).data
        return version

    async def current(self, program: Program) -> Version:
        """The version that answers, or the newest while none is deployed."""
        deployed = program.deployed_version_id
        version = await self._store.version(program.project, deployed) if deployed else None
        return version or await self.newest(program)

    async def signature(self, project: str, name: str, number: int | None = None) -> Signature:
        """What a version takes and gives, by default the current one's; see `contract_of`.

        Raises Missing, Conflict (code signature_unknown) for a module that was not looked at yet.
        """
        program = await self.get(project, name)
        version = await (self.current(program) if number is None else self.version_numbered(program, number))
        found = contract_of(version)
        if found is None:
            raise Conflict(
                f"What version {version.number} of {name!r} takes and gives is not known before it is initialized.",
                code="signature_unknown",
            )
        return found

    async def showing_row(self, project: str, row_id: str) -> Sequence[Showing]:
        """The versions whose prompts show a row of a dataset, by program and number."""
        return await self._store.showing(project, row_id=row_id)

    async def showing_rows_of(self, project: str, dataset: str, versions: Sequence[int]) -> Sequence[Showing]:
        """As `showing_row`, of all rows of these versions of a dataset."""
        return await self._store.showing(project, dataset=dataset, versions=versions)

    async def versions(self, program: Program, *, limit: int, cursor: str | None) -> Page[Version]:
        return await self._store.versions(program.project, program.id, limit=limit, cursor=cursor)

    async def deployable(self, program: Program) -> Version:
        """The newest version that can run, or the newest while none can: one that failed must not win."""
        cursor: str | None = None
        while True:
            page = await self.versions(program, limit=MAX_LIMIT, cursor=cursor)
            for version in page.data:
                if version.status in EXECUTABLE:
                    return version
            cursor = page.next_cursor
            if cursor is None:
                return await self.newest(program)

    async def import_state(
        self, program: Program, saved: Mapping[str, Any], *, base: Version
    ) -> tuple[Version, builtins.list[str]]:
        """The executable version with what `module.save` wrote, and notes on what was left out of it.

        Raises Conflict for an archived program (program_archived) and a mock as the base (not_with_mock),
        Invalid (bad_state) for a state that is none or of another module; Unavailable without a compiler. What
        can't run never becomes a version.
        """
        check_live(program)
        if base.definition.mock is not None:
            raise Conflict(
                f"Version {base.number} of {program.name!r} is a mock, which has no use for a state; name a version "
                "with a model as the base.",
                code="not_with_mock",
            )
        state, notes = _imported(saved, base.definition)
        definition = replace(base.definition, state=state)
        await self.check_state(program.project, definition)
        version = await self.add_version(program, definition)
        if await self.unready([version]):
            (version,) = await self.initialize([version])
        return version, notes

    async def optimized(
        self, program: Program, state: Mapping[str, Any], *, parent: Version, lineage: Mapping[str, Any]
    ) -> Version:
        """The executable version that an optimizer made of `parent`: `state` is what DSPy dumped of it.

        One with this content that is there already stays as it is. Raises as `import_state`.
        """
        check_live(program)
        kept, _ = _imported(state, parent.definition)
        if COMPOSED in state:
            # Nobody but an optimizer may say so: it can name Python code.
            kept = {**kept, COMPOSED: state[COMPOSED]}
        definition = replace(parent.definition, state=kept)
        await self.check_state(program.project, definition)
        version = await self.add_version(program, definition, parent_id=parent.id, lineage=lineage)
        if await self.unready([version]):
            (version,) = await self.initialize([version])
        if version.status == "ready" and version.parent_id is not None:
            after = replace(version, status="optimized")
            await self._store.update_version(after, expected_status="ready")
            version = after
        return version

    async def compare(self, before: Version, after: Version) -> Comparison:
        """What differs between two versions of a program."""
        saved = [
            await self._store.compiled(one.project, one.compiled_digest) if one.compiled_digest else None
            for one in (before, after)
        ]
        old, new = (one.saved_state if one else None for one in saved)
        return compare(before.definition, after.definition, old, new)

    async def saved_state(self, version: Version) -> dict[str, Any]:
        """What plain `dspy.Module.load` reads. Raises Conflict for a version that was never compiled."""
        if version.definition.mock is not None:
            raise Conflict(
                f"Version {version.number} is a mock: it was never compiled and has no state of DSPy's.",
                code="not_compiled",
            )
        compiled = (
            await self._store.compiled(version.project, version.compiled_digest)
            if version.compiled_digest
            else None
        )
        if compiled is None:
            raise Conflict(
                f"Version {version.number} was not compiled by DSPy ({version.status}); initialize it first.",
                code="not_compiled",
            )
        return dict(compiled.saved_state)


def _imported(saved: Mapping[str, Any], definition: Definition) -> tuple[dict[str, Any], list[str]]:
    if definition.module != "pipeline":
        return imported_state(saved, definition.module)
    modules = {step["name"]: step["module"] for step in definition.config["steps"]}
    states, notes = imported_pipeline_state(saved, modules)
    return joined(states), notes
