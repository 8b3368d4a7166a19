"""Pure decisions about programs and versions."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import orjson

from dspex.configuration.settings import PROGRAM_NAME
from dspex.kit.errors import Conflict
from dspex.programs.records import (
    COMPILED_FORMAT,
    EXECUTABLE,
    Definition,
    Program,
    ProgramStatus,
    Version,
    VersionStatus,
)

# The lifecycle of one version. `deployed` steps back to ready or optimized when another takes its place.
TRANSITIONS: Mapping[VersionStatus, frozenset[VersionStatus]] = {
    "draft": frozenset({"initializing"}),
    # To itself as well: a process that died while initializing must not block the next one.
    "initializing": frozenset({"initializing", "ready", "error"}),
    "error": frozenset({"initializing"}),
    "ready": frozenset({"optimized", "deployed"}),
    "optimized": frozenset({"deployed"}),
    "deployed": frozenset({"ready", "optimized"}),
}
_PRECEDENCE: tuple[VersionStatus, ...] = ("deployed", "optimized", "ready", "initializing", "error", "draft")
ADHOC = "adhoc"
_NAME = re.compile(PROGRAM_NAME)


def is_name(name: str) -> bool:
    """Whether a program could have this name; others need not be looked up."""
    return _NAME.fullmatch(name) is not None


def check_live(program: Program) -> None:
    """Raises Conflict (code program_archived)."""
    if program.archived_at is not None:
        raise Conflict(
            f"{program.name!r} is archived; make a program with another name.", code="program_archived"
        )


def check_transition(current: VersionStatus, wanted: VersionStatus) -> None:
    """Raises Conflict (code illegal_transition) for a step the lifecycle does not have."""
    if wanted not in TRANSITIONS[current]:
        raise Conflict(f"A version that is {current} can't become {wanted}.", code="illegal_transition")


def program_status(program: Program, version_statuses: Iterable[str]) -> ProgramStatus:
    """Derived, never stored: the furthest status among its versions, or archived."""
    if program.archived_at is not None:
        return "archived"
    present = set(version_statuses)
    return next((status for status in _PRECEDENCE if status in present), "draft")


def canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def definition_digest(definition: Definition) -> str:
    """sha256 over the canonical JSON of everything that decides what a version does.

    The order of fields in a signature matters and is kept: they are lists there.
    """
    return hashlib.sha256(canonical(asdict(definition))).hexdigest()


def compiled_digest(definition: Definition) -> str:
    """Where a definition's compiled document is kept: by what it is made from and the form it has.

    Without the model's alias, since what is compiled does not depend on our name for the model.
    """
    content = asdict(replace(definition, lm=replace(definition.lm, alias="")))
    return hashlib.sha256(canonical([COMPILED_FORMAT, content])).hexdigest()


def is_stale(version: Version) -> bool:
    """Whether it runs on a document in the form of another release, and has to be compiled again."""
    return (
        version.status in EXECUTABLE
        and version.definition.mock is None
        and version.compiled_digest != compiled_digest(version.definition)
    )
