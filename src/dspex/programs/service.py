"""Use cases around programs: register, initialize, deploy, roll back, archive, compare, move."""

import asyncio
import builtins
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from dspex.kit.clock import Clock
from dspex.kit.errors import Conflict, DspexError, Exhausted, Invalid, Missing
from dspex.kit.facts import Facts
from dspex.kit.ids import new_id
from dspex.kit.paging import MAX_LIMIT, Page
from dspex.programs.comparison import Comparison, compare
from dspex.programs.facts import ProgramChanged
from dspex.programs.ports import Compiled, Compiler, ProgramStore, Refused
from dspex.programs.records import (
    EXECUTABLE,
    CompiledDocument,
    Definition,
    Deployment,
    Program,
    ProgramSettings,
    ProgramStatus,
    Source,
    Version,
)
from dspex.programs.rules import (
    ADHOC,
    check_live,
    check_transition,
    compiled_digest,
    definition_digest,
    is_name,
    is_stale,
    previous_deployment,
    program_status,
)
from dspex.programs.transfer import imported_state

log = structlog.get_logger(__name__)
ADHOC_QUEUE = 64
REFUSALS_KEPT = 1000


class ProgramService:
    def __init__(self, store: ProgramStore, compiler: Compiler, clock: Clock, facts: Facts) -> None:
        self._store = store
        self._compiler = compiler
        self._clock = clock
        self._facts = facts
        self._compiling: dict[tuple[str, str], asyncio.Task[CompiledDocument]] = {}
        # Asking again for what DSPy refuses should not start a process again.
        self._refused: dict[str, str] = {}

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
        """A new program with its first version, a draft. Raises Conflict when the name is taken."""
        if name == ADHOC:
            raise Conflict(
                f"{ADHOC!r} names the executions without a program; choose another name.",
                code="reserved_name",
            )
        now = self._clock.now()
        program = Program(new_id(), project, name, source, settings, now, now, description)
        version = replace(self._draft(program, definition), number=1)
        await self._store.add(program, version)
        return program, version

    async def add_version(
        self, program: Program, definition: Definition, *, parent_id: str | None = None
    ) -> Version:
        """The version of this definition: the one that is there, or a new draft.

        Raises Conflict (code program_archived).
        """
        check_live(program)
        existing = await self._store.version_by_digest(
            program.project, program.id, definition_digest(definition)
        )
        return existing or await self._store.add_version(self._draft(program, definition, parent_id))

    def _draft(self, program: Program, definition: Definition, parent_id: str | None = None) -> Version:
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
        )

    async def initialize(self, versions: Sequence[Version]) -> builtins.list[Version]:
        """Makes versions executable: compiled documents found again, the rest compiled in one worker run.

        A refused definition leaves its version in `error` with the reason. Raises Conflict for a version
        that can't be initialized; and, once the others are done, Unavailable or TimedOut when the compiler is
        missing, dies or hangs (its versions are in `error` then).
        """
        started = [await self._start(version) for version in versions]
        missing = [
            version
            for version in started
            if (version.status == "initializing" or is_stale(version))
            and version.definition.mock is None
            and await self._store.compiled(version.project, compiled_digest(version.definition)) is None
        ]
        failure: DspexError | None = None
        compiled: Sequence[Compiled | Refused] = ()
        if missing:
            try:
                compiled = await self._compiler.compile([version.definition for version in missing])
            except DspexError as error:
                failure = error
                compiled = [Refused(error.message) for _ in missing]
        outcomes = dict(zip((version.id for version in missing), compiled, strict=True))
        concluded = [await self._conclude(version, outcomes.get(version.id)) for version in started]
        if failure is not None:
            raise failure
        return concluded

    async def _start(self, version: Version) -> Version:
        """The version, initializing; or as another node has made it executable meanwhile.

        One that runs on a document of another release stays what it is while it is compiled again.
        """
        if is_stale(version):
            return version
        check_transition(version.status, "initializing")
        started = replace(version, status="initializing", error=None)
        try:
            await self._store.update_version(started, expected_status=version.status)
        except Conflict:
            stored = await self._store.version(version.project, version.id)
            if stored is None or stored.status not in {"initializing", *EXECUTABLE}:
                raise
            return stored
        return started

    async def _conclude(self, version: Version, outcome: Compiled | Refused | None) -> Version:
        if version.status != "initializing" and not is_stale(version):
            return version
        if version.definition.mock is not None:
            mocked = replace(version, status="ready", executor="mock", executor_reason="asked for")
            return await self._finish(version, mocked)
        if isinstance(outcome, Refused):
            status = version.status if version.status in EXECUTABLE else "error"
            return await self._finish(version, replace(version, status=status, error=outcome.reason))
        digest = compiled_digest(version.definition)
        if isinstance(outcome, Compiled):
            await self._store.add_compiled(
                CompiledDocument(
                    digest, version.project, outcome.document, outcome.saved_state, self._clock.now()
                )
            )
        reason = "exact: compiled by DSPy and checked against it"
        return await self._finish(
            version,
            replace(
                version,
                status=version.status if version.status in EXECUTABLE else "ready",
                error=None,
                executor="native",
                executor_reason=reason,
                compiled_digest=digest,
            ),
        )

    async def _finish(self, before: Version, after: Version) -> Version:
        if after.status != before.status:
            check_transition(before.status, after.status)
        try:
            await self._store.update_version(after, expected_status=before.status)
        except Conflict:
            # Another node initialized the same version meanwhile; compiling is deterministic, so its result is ours.
            stored = await self._store.version(before.project, before.id)
            if stored is None or stored.status not in EXECUTABLE:
                raise
            return stored
        return after

    async def compile_adhoc(self, project: str, definition: Definition) -> CompiledDocument:
        """The compiled document of a definition that belongs to no program, compiled at most once.

        Raises Invalid (code not_native) when it is refused, Unavailable without a compiler.
        """
        digest = compiled_digest(definition)
        stored = await self._store.compiled(project, digest)
        if stored is not None:
            return stored
        if digest in self._refused:
            raise _not_native(self._refused[digest])
        key = (project, digest)
        task = self._compiling.get(key)
        if task is None:
            if len(self._compiling) >= ADHOC_QUEUE:
                raise Exhausted(
                    f"{ADHOC_QUEUE} signatures are waiting to be compiled; try again in a while, or register "
                    "the program so that it is compiled once.",
                    code="compile_queue_full",
                    retry_after=10,
                )
            # A task of its own: the first caller going away must not fail the others who wait for it.
            task = asyncio.create_task(self._compile_one(project, definition, digest))
            self._compiling[key] = task
            task.add_done_callback(lambda _: self._compiling.pop(key, None))
        return await asyncio.shield(task)

    async def _compile_one(self, project: str, definition: Definition, digest: str) -> CompiledDocument:
        (outcome,) = await self._compiler.compile([definition])
        if isinstance(outcome, Refused):
            if len(self._refused) >= REFUSALS_KEPT:
                self._refused.clear()
            self._refused[digest] = outcome.reason
            raise _not_native(outcome.reason)
        compiled = CompiledDocument(digest, project, outcome.document, outcome.saved_state, self._clock.now())
        await self._store.add_compiled(compiled)
        return compiled

    async def deploy(self, program: Program, version: Version, *, rollback: bool = False) -> Program:
        """Makes this version the one that answers. Raises Conflict when it can't run or the program is archived."""
        check_live(program)
        if version.status not in EXECUTABLE:
            raise Conflict(
                f"Version {version.number} of {program.name!r} is {version.status}"
                + (f" ({version.error})" if version.error else "")
                + "; initialize it first.",
                code="not_executable",
            )
        if program.deployed_version_id == version.id:
            return program
        deployment = Deployment(
            new_id(),
            program.project,
            program.id,
            version.id,
            "rollback" if rollback else "deploy",
            self._clock.now(),
        )
        await self._store.deploy(program, version, deployment)
        self._facts.announce(ProgramChanged(program.project, program.name))
        return replace(program, deployed_version_id=version.id)

    async def rollback(self, program: Program) -> tuple[Program, Version]:
        """Deploys again what was deployed before the present version. Raises Conflict when there is nothing."""
        history = await self._store.deployments(program.project, program.id)
        target = previous_deployment(history)
        version = await self._store.version(program.project, target) if target else None
        if version is None:
            raise Conflict(
                f"{program.name!r} has no earlier deployment to go back to.", code="nothing_to_roll_back"
            )
        return await self.deploy(program, version, rollback=True), version

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

    async def version_numbered(self, program: Program, number: int) -> Version:
        """Raises Missing (code version_missing)."""
        version = await self._store.version_by_number(program.project, program.id, number)
        if version is None:
            raise Missing(f"{program.name!r} has no version {number}.", code="version_missing")
        return version

    async def newest(self, program: Program) -> Version:
        """Every program has at least one version."""
        (version,) = (await self.versions(program, limit=1, cursor=None)).data
        return version

    async def current(self, program: Program) -> Version:
        """The version that answers, or the newest while none is deployed."""
        deployed = program.deployed_version_id
        version = await self._store.version(program.project, deployed) if deployed else None
        return version or await self.newest(program)

    async def versions(self, program: Program, *, limit: int, cursor: str | None) -> Page[Version]:
        return await self._store.versions(program.project, program.id, limit=limit, cursor=cursor)

    async def deployable(self, program: Program) -> Version:
        """The newest version that can run, or the newest while none can: a failed import must not win."""
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
        Invalid (bad_state) for a state that is none or of another module; Unavailable without a compiler.
        """
        check_live(program)
        if base.definition.mock is not None:
            raise Conflict(
                f"Version {base.number} of {program.name!r} is a mock, which has no use for a state; name a version "
                "with a model as the base.",
                code="not_with_mock",
            )
        state, notes = imported_state(saved)
        version = await self.add_version(program, replace(base.definition, state=state))
        if version.status not in EXECUTABLE:
            (version,) = await self.initialize([version])
        if version.status not in EXECUTABLE:
            raise Invalid(f"Version {version.number} can't run: {version.error}", code="bad_state")
        return version, notes

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


def _not_native(reason: str) -> Invalid:
    return Invalid(f"This can't run: {reason}", code="not_native")
