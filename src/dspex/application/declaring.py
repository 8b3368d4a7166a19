"""Programs of the configuration file become programs of the database: the file owns what it declares."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import structlog

from dspex.configuration.settings import ProgramEntry, Settings
from dspex.executions.mock import Mock
from dspex.kit.errors import Conflict, DspexError, Invalid, Missing
from dspex.programs.definitions import choose_model, define
from dspex.programs.records import EXECUTABLE, Definition, Program, ProgramSettings, Version
from dspex.programs.rules import is_stale
from dspex.programs.service import ProgramService

log = structlog.get_logger(__name__)


async def declare(programs: ProgramService, settings: Settings, project: str, directory: Path) -> None:
    """Registers, initializes and deploys what the file declares; archives what it no longer does.

    All new versions compile in one run of the worker. A version is deployed when the file asks for another one
    than last time; what an operator deployed since stays. A program that can't be initialized is logged with
    its reason and does not stop the others, nor the version of it that is deployed already. A malformed
    entry and a name that the API made are mistakes in the file: they raise.
    """
    wanted = [(entry, definition_of(entry, settings, directory)) for entry in settings.programs]
    declared = [await _declare_one(programs, project, entry, definition) for entry, definition in wanted]
    waiting = [version for _, version in declared if version.status not in EXECUTABLE or is_stale(version)]
    ready = {version.id: version for version in await _initialize(programs, waiting)}
    for program, version in declared:
        current = ready.get(version.id, version)
        if current.status not in EXECUTABLE:
            log.error("program_not_ready", program=program.name, version=current.number, reason=current.error)
        elif program.settings.declared != current.digest or program.deployed_version_id is None:
            deployed = await programs.deploy(program, current)
            remembered = replace(program.settings, declared=current.digest)
            await programs.change(replace(deployed, settings=remembered))
        elif program.deployed_version_id != current.id:
            log.info("operators_version_kept", program=program.name, version_of_the_file=current.number)
    await _archive_others(programs, project, {entry.name for entry in settings.programs})


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
        return define(entry.signature, entry.module, entry.adapter, lm, _state(entry, directory), mock)
    except Invalid as error:
        raise Invalid(
            f"Program {entry.name!r} in the configuration: {error.message}",
            code=error.code,
            problems=error.problems,
        ) from error


def _mock(entry: ProgramEntry) -> dict[str, Any] | None:
    if entry.executor != "mock":
        if entry.mock is not None:
            raise Invalid("a mock script goes with `executor: mock` only.", code="bad_mock")
        return None
    Mock(entry.mock or {})
    return entry.mock or {}


def _state(entry: ProgramEntry, directory: Path) -> dict[str, Any] | None:
    if entry.state is None:
        return None
    path = directory / entry.state
    try:
        state = orjson.loads(path.read_bytes())
    except OSError as error:
        raise Invalid(f"its state {path} can't be read: {error.strerror}.", code="bad_state") from None
    except orjson.JSONDecodeError as error:
        raise Invalid(f"its state {path} is not JSON: {error}.", code="bad_state") from None
    if not isinstance(state, dict):
        raise Invalid(f"its state {path} is not what `module.save` writes: no JSON object.", code="bad_state")
    return state


async def _declare_one(
    programs: ProgramService, project: str, entry: ProgramEntry, definition: Definition
) -> tuple[Program, Version]:
    settings = ProgramSettings(entry.timeout_s, entry.on_violation)
    try:
        program = await programs.get(project, entry.name)
    except Missing:
        try:
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
    if program.source != "file":
        raise Conflict(
            f"The file declares {entry.name!r}, but a program of that name was made through the API. "
            "Give the one in the file another name; names are never given away again.",
            code="program_made_by_api",
        )
    settings = replace(settings, declared=program.settings.declared)
    changed = replace(program, settings=settings, description=entry.description, archived_at=None)
    if changed != program:
        program = await programs.change(changed)
    return program, await programs.add_version(program, definition)


async def _initialize(programs: ProgramService, waiting: Sequence[Version]) -> list[Version]:
    if not waiting:
        return []
    log.info("initializing", versions=len(waiting))
    try:
        return await programs.initialize(waiting)
    except DspexError as error:
        # The reason is with each version; programs deployed earlier go on.
        log.error("initializing_failed", reason=error.message)
        return []


async def _archive_others(programs: ProgramService, project: str, declared: set[str]) -> None:
    cursor: str | None = None
    while True:
        page = await programs.list(project, include_archived=False, limit=200, cursor=cursor)
        for program in page.data:
            if program.source == "file" and program.name not in declared:
                log.info("program_archived", program=program.name, reason="no longer in the file")
                await programs.archive(program)
        cursor = page.next_cursor
        if cursor is None:
            return
