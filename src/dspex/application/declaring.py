"""Programs of the configuration file become programs of the database: the file owns what it declares."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from dspex.access.audit import Audit
from dspex.access.records import FILE, Author
from dspex.application.origin import Origin
from dspex.configuration.pipelines import PipelineEntry
from dspex.configuration.settings import ProgramEntry, Settings
from dspex.executions.mock import Mock
from dspex.kit import json
from dspex.kit.errors import Conflict, DspexError, Invalid, Missing
from dspex.programs.declared import displaced_by
from dspex.programs.definitions import choose_model, define
from dspex.programs.kinds import is_reference
from dspex.programs.python_signatures import PythonSignatures
from dspex.programs.records import Definition, Program, ProgramSettings, Version, WantedExecutor
from dspex.programs.rules import check_name, definition_digest, is_awaited
from dspex.programs.service import ProgramService
from dspex.providers.python_code import code_digest

log = structlog.get_logger(__name__)
# Why the file's version of a program can't run, by the program's name.
NotReady = Mapping[str, str]


class Wanted(Struct, frozen=True):
    """A program of the file, and what it means."""

    entry: ProgramEntry
    definition: Definition


async def check(
    programs: ProgramService, signatures: PythonSignatures, settings: Settings, project: str, origin: Origin
) -> list[Wanted]:
    """The file's programs, for `declare`. Changes nothing: a bad file is refused whole.

    A malformed entry, a name that is reserved or that the API gave away are mistakes in the file: they raise Invalid
    or Conflict.
    """
    for note in settings.dspy_cli.notes if settings.dspy_cli is not None else ():
        log.warning("dspy_cli_project", note=note)
    wanted = []
    for entry in settings.programs:
        check_name(entry.name)
        document = await with_document(entry, signatures, project, settings)
        wanted.append(Wanted(entry, definition_of(document, settings, origin.directory)))
    for one in wanted:
        with suppress(Missing):
            _check_owner(await programs.get(project, one.entry.name), one.definition, origin)
    return wanted


async def declare(
    programs: ProgramService, wanted: Sequence[Wanted], project: str, origin: Origin, audit: Audit
) -> NotReady:
    """Registers, initializes and deploys what the file declares; archives what it no longer does.

    What another file declared stays as it is, and is warned of; where that one is still there and means something
    else by a name, this one is refused.

    Whatever answers in any project and was compiled by other releases only is compiled for this one, and all new
    versions with it. A version is deployed when the file asks for another one than last time; what an operator
    deployed since stays. What can't be initialized is logged with its reason and does not stop the others, nor the
    version of it that is deployed already; of the file's programs those are returned.
    """
    author = Author(project, FILE)
    declared = [
        await _declare_one(programs, audit, author, one.entry, one.definition, origin) for one in wanted
    ]
    await _archive_others(programs, audit, author, {one.entry.name for one in wanted}, origin)
    named = [(program.name, version) for program, version in declared] + [*await programs.deployed()]
    names = {version.id: name for name, version in named}
    waiting = await programs.unready([*{version.id: version for _, version in named}.values()])
    told = [f"{names[version.id]}@{version.number}" for version in waiting]
    done = {version.id: version for version in await _initialize(programs, audit, author, waiting, told)}
    unready = await programs.unready([*done.values()])
    for version in unready:
        log.error(
            "program_not_ready",
            project=version.project,
            program=names[version.id],
            version=version.number,
            reason=version.error,
        )
    reasons = {version.id: version.error or "" for version in unready}
    for program, version in declared:
        current = done.get(version.id, version)
        if current.id not in reasons and program.deployed_version_id != current.id:
            await _deploy_awaited(programs, audit, author, program, current)
    return {program.name: reasons[version.id] for program, version in declared if version.id in reasons}


async def with_document(
    entry: ProgramEntry, signatures: PythonSignatures, project: str, settings: Settings
) -> ProgramEntry:
    """The entry with documents for signatures that are classes in Python. Raises Invalid, Unavailable."""
    code = partial(code_digest, roots=settings.code_roots)
    try:
        if entry.pipeline is not None:
            pipeline = await signatures.pipeline(project, entry.pipeline, code)
            return entry.model_copy(update={"pipeline": pipeline})
        document = await signatures.resolved(project, entry.signature, code)
    except Invalid as error:
        raise _of_program(entry, error) from error
    return entry.model_copy(update={"signature": document})


def signatures_in_python(entry: ProgramEntry) -> list[str]:
    """The classes that its signatures are."""
    steps = () if entry.pipeline is None else entry.pipeline.steps
    return [one for one in (entry.signature, *(step.signature for step in steps)) if is_reference(one)]


def settings_of(entry: ProgramEntry) -> ProgramSettings:
    return ProgramSettings(
        timeout_s=entry.timeout_s,
        on_violation=entry.on_violation,
        cache=entry.cache,
        rate_limit=entry.rate_limit,
        budget=entry.budget,
        alerts=entry.alerts,
        gates=entry.gates,
    )


def definition_of(entry: ProgramEntry, settings: Settings, directory: Path) -> Definition:
    """What an entry of the file means. Raises Invalid that names the program for every mistake in it."""
    try:
        lm = choose_model(
            settings.models,
            entry.model,
            temperature=entry.temperature,
            max_tokens=entry.max_tokens,
            options=entry.options,
        )
        mock = _mock(entry)
        state = _state(entry.state, directory)
        executor: WantedExecutor = "auto" if entry.executor == "mock" else entry.executor

        code = partial(code_digest, roots=settings.code_roots)
        if entry.pipeline is not None:
            # Imported here: nodes without pipelines start without them.
            from dspex.programs.pipelines.reading import define_pipeline

            return define_pipeline(
                _with_states(entry.pipeline, directory),
                settings.models,
                entry.adapter,
                lm,
                state,
                mock,
                config=entry.config,
                executor=executor,
                code=code,
            )
        return define(
            entry.signature,
            entry.module,
            entry.adapter,
            lm,
            state,
            mock,
            config=entry.config,
            executor=executor,
            code=code,
        )
    except Invalid as error:
        raise _of_program(entry, error) from error


def _of_program(entry: ProgramEntry, error: Invalid) -> Invalid:
    return Invalid(
        f"Program {entry.name!r} in the configuration: {error.message}",
        code=error.code,
        problems=error.problems,
    )


def _mock(entry: ProgramEntry) -> dict[str, Any] | None:
    if entry.executor != "mock":
        if entry.mock is not None:
            raise Invalid("a mock script goes with `executor: mock` only.", code="bad_mock")
        return None
    Mock(entry.mock or {})
    return entry.mock or {}


def _with_states(pipeline: PipelineEntry, directory: Path) -> PipelineEntry:
    """With the states that the steps name as files."""
    steps = [
        step.model_copy(update={"state": _state(step.state, directory)})
        if isinstance(step.state, str)
        else step
        for step in pipeline.steps
    ]
    return pipeline.model_copy(update={"steps": steps})


def _state(file: str | None, directory: Path) -> dict[str, Any] | None:
    if file is None:
        return None
    path = directory / file
    try:
        state = json.loads(path.read_bytes())
    except OSError as error:
        raise Invalid(f"its state {path} can't be read: {error.strerror}.", code="bad_state") from None
    except ValueError as error:
        raise Invalid(f"its state {path} is not JSON: {error}.", code="bad_state") from None
    if not isinstance(state, dict):
        raise Invalid(f"its state {path} is not what `module.save` writes: no JSON object.", code="bad_state")
    return state


def _check_owner(program: Program, definition: Definition, origin: Origin) -> None:
    if program.source != "file":
        raise Conflict(
            f"The file declares {program.name!r}, but a program of that name was made through the API. "
            "Give the one in the file another name; names are never given away again.",
            code="program_made_by_api",
        )
    settings, other = program.settings, program.settings.declared_in
    if program.archived_at is not None or other in (None, origin.name):
        return
    if settings.declared != definition_digest(definition) and origin.has(other):
        raise Conflict(
            f"{program.name!r} is declared by {origin.place_of(other)} as well, which means something else by it. Give "
            "each file a database of its own (`data_dir`, or --data-dir); or if this file stands for that one now, "
            "remove that one.",
            code="program_of_another_file",
        )


async def _declare_one(
    programs: ProgramService,
    audit: Audit,
    author: Author,
    entry: ProgramEntry,
    definition: Definition,
    origin: Origin,
) -> tuple[Program, Version]:
    project, digest = author.project, definition_digest(definition)
    settings = replace(settings_of(entry), declared=digest, declared_in=origin.name)
    try:
        program = await programs.get(project, entry.name)
    except Missing:
        try:
            async with audit.operation(author, "program.create", entry.name):
                return await programs.create(
                    project,
                    entry.name,
                    definition,
                    settings=settings,
                    source="file",
                    description=entry.description,
                )
        except Conflict as conflict:
            if conflict.code != "program_exists":
                raise
            # Another node that starts with the same file was faster.
            program = await programs.get(project, entry.name)
    _check_owner(program, definition, origin)
    settings = replace(settings, declared_after=program.settings.declared_after)
    if program.settings.declared != digest:
        history = await programs.history(program)
        settings = replace(settings, declared_after=history[0].id if history else None)
    changed = replace(program, settings=settings, description=entry.description, archived_at=None)
    if changed != program:
        async with audit.operation(author, "program.change", program.name):
            program = await programs.change(changed)
    return program, await programs.add_version(program, definition)


async def _initialize(
    programs: ProgramService,
    audit: Audit,
    author: Author,
    waiting: Sequence[Version],
    told: Sequence[str],
) -> list[Version]:
    """The versions as they are afterwards. `told` are their names for the audit log."""
    if not waiting:
        return []
    log.info("initializing", versions=len(waiting))
    try:
        async with audit.operation(author, "program.initialize", versions=list(told)):
            await programs.initialize(waiting)
    except DspexError as error:
        # The reason is with each version; the others are done all the same.
        log.error("initializing_failed", reason=error.message)
    return [await programs.version(one.project, one.id) for one in waiting]


async def _deploy_awaited(
    programs: ProgramService, audit: Audit, author: Author, program: Program, version: Version
) -> None:
    history = await programs.history(program)
    if is_awaited(program.settings, history):
        deployed = program.deployed_version_id
        before = None if deployed is None else await programs.version(program.project, deployed)
        told = {"version": version.number, "before": None if before is None else before.number}
        try:
            async with audit.operation(author, "program.deploy", program.name, **told, force=False):
                await programs.deploy(program, version)
        except Conflict as refused:
            if refused.code != "gate_not_met":
                raise
            log.error("program_not_deployed", program=program.name, reason=refused.message)
            return
        displaced = None if before is None else displaced_by(before)
        if displaced is not None:
            log.warning(
                "optimized_version_displaced",
                program=program.name,
                version=version.number,
                displaced=displaced.version,
                optimization=displaced.optimization,
                advice=f"What the file declares has changed. `dspex rollback {program.name}` lets version "
                f"{displaced.version} answer again; `dspex optimize {program.name} DATASET` makes the new one better.",
            )
    elif history[0].version_id != version.id:
        log.info("operators_version_kept", program=program.name, version_of_the_file=version.number)


async def _archive_others(
    programs: ProgramService, audit: Audit, author: Author, declared: set[str], origin: Origin
) -> None:
    cursor: str | None = None
    while True:
        page = await programs.list(author.project, include_archived=False, limit=200, cursor=cursor)
        for program in page.data:
            if program.source != "file" or program.name in declared:
                continue
            if program.settings.declared_in not in (None, origin.name):
                log.warning(
                    "program_of_another_file", program=program.name, file=program.settings.declared_in
                )
            else:
                log.info("program_archived", program=program.name, reason="no longer in the file")
                async with audit.operation(author, "program.archive", program.name):
                    await programs.archive(program)
        cursor = page.next_cursor
        if cursor is None:
            return
