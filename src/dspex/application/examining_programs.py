"""What `dspex doctor` finds of the programs: mistakes in the file, code that can't be imported, missing prices."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from dspex.access.records import DEFAULT_PROJECT
from dspex.application.declaring import definition_of, with_document
from dspex.application.lazy_pools import LazyPools
from dspex.application.observing import hide_secrets
from dspex.application.unpriced import ADVICE, unpriced_models
from dspex.configuration.settings import ProgramEntry, Settings
from dspex.interfaces.cli.ports import Finding
from dspex.kit.clock import Clock, SystemClock
from dspex.kit.errors import DspexError
from dspex.observability.logs import configure_logs
from dspex.programs.choosing import ChoosingCompiler
from dspex.programs.ports import Refused
from dspex.programs.python_signatures import PythonSignatures
from dspex.programs.records import Definition
from dspex.providers.compiler import SubprocessCompiler
from dspex.providers.memory.programs import MemoryPrograms


def examine_programs(settings: Settings, directory: Path) -> Iterator[Finding]:
    """One finding a program, or one for each thing that is wrong with it. Importing Python takes seconds."""
    hide_secrets(settings)
    # The findings say it; what workers print besides would stand between them.
    configure_logs("error", settings.log_format)
    yield from asyncio.run(_all(settings, directory))


async def _all(settings: Settings, directory: Path) -> Sequence[Finding]:
    return [one async for one in _each(settings, directory)]


async def _each(settings: Settings, directory: Path) -> AsyncIterator[Finding]:
    clock = SystemClock()
    pools = LazyPools(settings.pools, settings.code_roots, clock, share=1)
    try:
        for entry in settings.programs:
            try:
                definition = await _definition(entry, settings, directory, pools, clock)
                refused = await _refused(definition, pools)
            except DspexError as error:
                refused = str(error)
            unpriced = await unpriced_models(entry, settings)
            subject = f"program {entry.name}"
            if refused is not None:
                yield Finding(subject, "failed", refused)
            for model in unpriced:
                detail = f"its budget needs the price of the model {model!r}, which is not known"
                yield Finding(subject, "failed", detail, ADVICE)
            if refused is None and not unpriced:
                yield Finding(subject, "ok", _made_of(entry))
    finally:
        await pools.aclose()


async def _definition(
    entry: ProgramEntry, settings: Settings, directory: Path, pools: LazyPools, clock: Clock
) -> Definition:
    signatures = PythonSignatures(MemoryPrograms(), pools, clock)
    document = await with_document(entry, signatures, DEFAULT_PROJECT, settings)
    return definition_of(document, settings, directory)


async def _refused(definition: Definition, pools: LazyPools) -> str | None:
    """Why Python code that it names can't be used, looked at where an initialization does."""
    if definition.code is None or definition.mock is not None:
        return None
    (outcome,) = await ChoosingCompiler(SubprocessCompiler(), pools).compile([definition])
    return outcome.reason if isinstance(outcome, Refused) else None


def _made_of(entry: ProgramEntry) -> str:
    if entry.pipeline is None:
        return entry.module
    return f"pipeline of {', '.join(step.name for step in entry.pipeline.steps)}"
