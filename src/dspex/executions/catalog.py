"""What can be run, ready to run: programs resolved to compiled versions, kept in memory."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from dspex.executions.errors import NotExecutable
from dspex.executions.mock import Mock
from dspex.executions.native.pipeline import CompiledPipeline, load_pipeline
from dspex.executions.native.program import CompiledProgram, load
from dspex.executions.pooled import PooledProgram, pooled
from dspex.kit.clock import Clock
from dspex.kit.errors import Conflict, Missing, Unavailable
from dspex.kit.facts import Facts
from dspex.programs.facts import ProgramChanged
from dspex.programs.ports import ProgramReader
from dspex.programs.records import EXECUTABLE, CompiledDocument, Definition, Program, ProgramSettings, Version
from dspex.programs.rules import answers_of, compiled_digest, definition_digest, is_name, program_status
from dspex.signatures.document import signature_from_document
from dspex.signatures.records import Signature
from dspex.signatures.validation import InputValidator, OutputChecker

FRESH_S = 1.0
KEPT = 1000
DEFAULTS = ProgramSettings()
Run = CompiledProgram | CompiledPipeline | PooledProgram | Mock


class Runnable(Struct, frozen=True):
    """One version with everything a request needs; `run` is native, in a pool, or a mock.

    `model` is the default of a pipeline's steps.
    """

    name: str
    program_id: str | None
    version_id: str | None
    version: int | None
    compiled_digest: str | None
    settings: ProgramSettings
    signature: Signature
    outputs: Signature
    inputs: InputValidator
    checker: OutputChecker
    run: Run
    model: str

    @property
    def models(self) -> Mapping[str | None, str]:
        """The alias that is asked, by step of a pipeline; else by None."""
        if isinstance(self.run, CompiledPipeline | PooledProgram) and self.run.plan is not None:
            return {step.name: step.lm.alias for step in self.run.plan.steps}
        return {None: self.model}


class _Known(Struct):
    """What answered when it was last looked at; `looking` while somebody looks again."""

    seen: float
    runnable: Runnable
    looking: bool = False


class Catalog:
    """Finds the version that answers for a name.

    An entry is trusted for a second, then its program row is read again, so that a deployment on another
    node is seen within that time; one on this node is seen at once. While the database is away, what is
    known goes on.
    """

    def __init__(self, programs: ProgramReader, clock: Clock, facts: Facts) -> None:
        self._programs = programs
        self._clock = clock
        self._current: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._built: OrderedDict[tuple[str, str], Runnable] = OrderedDict()
        # Apart, so that signatures without a program never push out a program.
        self._adhoc: OrderedDict[tuple[str, str], Runnable] = OrderedDict()
        self._changes = 0
        facts.subscribe(ProgramChanged, self._forget)

    async def deployed(self, project: str, name: str) -> Runnable:
        """Raises Missing for an unknown name, NotExecutable when no version is deployed."""
        key = (project, name)
        known = self._current.get(key)
        if known is not None and self._clock.monotonic() - known.seen < FRESH_S:
            return known.runnable
        if known is not None and known.looking:
            # One request looks; those that come meanwhile go on with what is known.
            return known.runnable
        if known is not None:
            known.looking = True
        changes = self._changes
        try:
            program = await self._program(project, name)
            version = await self._deployed_version(program)
            runnable = await self._runnable(program, version)
        except Unavailable:
            if known is None:
                raise
            runnable = known.runnable
        except BaseException:
            self._current.pop(key, None)
            raise
        finally:
            if known is not None:
                known.looking = False
        if self._changes == changes:
            # Otherwise a deployment on this node came between, and what was read may be old.
            _keep(self._current, key, _Known(self._clock.monotonic(), runnable))
        return runnable

    async def version(self, project: str, name: str, number: int) -> Runnable:
        """A version by number, deployed or not. Raises Missing, or NotExecutable for its state."""
        program = await self._program(project, name)
        version = await self._programs.version_by_number(project, program.id, number)
        if version is None:
            raise Missing(f"{name!r} has no version {number}.", code="version_missing")
        if version.status not in EXECUTABLE:
            raise _not_executable(f"Version {number} of {name!r}", version.status, version.error)
        return await self._runnable(program, version)

    def known_adhoc(self, project: str, name: str, definition: Definition) -> Runnable | None:
        """A definition without a program that ran here before under this name."""
        key = (project, f"{name}/{definition_digest(definition)}")
        if key in self._adhoc:
            self._adhoc.move_to_end(key)
        return self._adhoc.get(key)

    def adhoc(
        self,
        project: str,
        name: str,
        definition: Definition,
        compiled: CompiledDocument | None,
        settings: ProgramSettings = DEFAULTS,
    ) -> Runnable:
        """A definition without a program, from what it was compiled to (None: it is a mock)."""
        run = Mock(definition.mock or {}) if compiled is None else _ready(definition, compiled)
        runnable = _build(name, definition, run, settings, compiled.digest if compiled else None)
        _keep(self._adhoc, (project, f"{name}/{definition_digest(definition)}"), runnable)
        return runnable

    async def _program(self, project: str, name: str) -> Program:
        program = await self._programs.get(project, name) if is_name(name) else None
        if program is None:
            raise Missing(f"There is no program {name!r}.", code="program_missing")
        if program.archived_at is not None:
            raise _not_executable(repr(name), "archived", None)
        return program

    async def _deployed_version(self, program: Program) -> Version:
        version = None
        if program.deployed_version_id is not None:
            version = await self._programs.version(program.project, program.deployed_version_id)
        if version is None:
            statuses = await self._programs.version_statuses(program.project, [program.id])
            newest = (await self._programs.versions(program.project, program.id, limit=1, cursor=None)).data
            error = newest[0].error if newest else None
            raise _not_executable(
                repr(program.name), program_status(program, statuses.get(program.id, ())), error
            )
        return version

    async def _runnable(self, program: Program, version: Version) -> Runnable:
        # Settings may change without a new version.
        key = (program.project, f"{version.id}/{program.settings!r}")
        if key not in self._built:
            run, digest = await self._load(version)
            built = _build(program.name, version.definition, run, program.settings, digest, version)
            _keep(self._built, key, built)
        self._built.move_to_end(key)
        return self._built[key]

    async def _load(self, version: Version) -> tuple[Run, str | None]:
        """What runs, and the digest of the compiled document that it was made from."""
        definition = version.definition
        if definition.mock is not None:
            return Mock(definition.mock), None
        compiled = await self._programs.compiled(version.project, compiled_digest(definition))
        if compiled is None:
            failed = f" That failed: {version.error}" if version.error else ""
            raise NotExecutable(
                f"Version {version.number} was compiled for another release of DSPex or of its parsers; "
                f"initialize it again.{failed}",
                code="compiled_by_another_release",
            )
        return _ready(definition, compiled), compiled.digest

    def _forget(self, fact: ProgramChanged) -> None:
        self._changes += 1
        self._current.pop((fact.project, fact.name), None)


def _ready(definition: Definition, compiled: CompiledDocument) -> Run:
    if compiled.document.get("executor") == "pool":
        return pooled(definition, compiled.document)
    if definition.module != "pipeline":
        return load(compiled.document, definition.lm.alias)
    aliases = {step["name"]: step["lm"]["alias"] for step in definition.config["steps"]}
    return load_pipeline(compiled.document, aliases)


def _build(
    name: str,
    definition: Definition,
    run: Run,
    settings: ProgramSettings,
    compiled_digest: str | None,
    version: Version | None = None,
) -> Runnable:
    if isinstance(run, PooledProgram):
        signature = outputs = run.signature
    else:
        signature = signature_from_document(definition.signature)
        outputs = (
            answers_of(signature, "chain_of_thought")
            if definition.module == "chain_of_thought"
            else signature
        )
    return Runnable(
        name=name,
        program_id=version.program_id if version else None,
        version_id=version.id if version else None,
        version=version.number if version else None,
        compiled_digest=compiled_digest,
        settings=settings,
        signature=signature,
        outputs=outputs,
        inputs=InputValidator(signature),
        checker=OutputChecker(outputs),
        run=run,
        model=definition.lm.alias,
    )


def _not_executable(what: str, status: str, error: str | None) -> Conflict:
    todo = {
        "archived": "it was taken out of service",
        "error": f"initializing failed: {error}",
        "draft": "initialize and deploy it first",
        "initializing": "it is being initialized, try again in a moment",
    }.get(status, "deploy one of its versions first")
    return NotExecutable(f"{what} is {status}; {todo}.")


def _keep(cache: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > KEPT:
        cache.popitem(last=False)
