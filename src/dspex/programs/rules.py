"""Pure decisions about programs and versions."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import version
from typing import Any

from dspex.configuration.settings import PROGRAM_NAME
from dspex.kit import json
from dspex.kit.errors import Conflict
from dspex.programs.records import (
    COMPILED_FORMAT,
    EXECUTABLE,
    Definition,
    Deployment,
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
    """One text for one value, whatever the order of its members."""
    return json.dumps(value, sort_keys=True)


def definition_digest(definition: Definition) -> str:
    """sha256 over the JSON of everything that decides what a version does.

    Members of options may stand in any order. Elsewhere the order counts: a demo's dict is rendered in it.
    """
    return hashlib.sha256(_content(definition)).hexdigest()


def compiled_digest(definition: Definition) -> str:
    """Where a definition's compiled document is kept: by what it is made from, its form, and who reads replies.

    Without the model's alias, since what is compiled does not depend on our name for the model. With the
    versions of the parsers, since a document is checked against DSPy with those.
    """
    nameless = replace(definition, lm=replace(definition.lm, alias=""))
    return hashlib.sha256(_form() + _content(nameless)).hexdigest()


def _content(definition: Definition) -> bytes:
    content = asdict(definition)
    content["lm"]["options"] = dict(sorted(definition.lm.options.items()))
    return json.dumps(content)


@cache
def _form() -> bytes:
    parsers = [f"{name}=={version(name)}" for name in ("json-repair", "regex", "pydantic")]
    return " ".join([str(COMPILED_FORMAT), *parsers]).encode()


def is_stale(of: Version) -> bool:
    """Whether it runs on a document in the form of another release, and has to be compiled again."""
    return (
        of.status in EXECUTABLE
        and of.definition.mock is None
        and of.compiled_digest != compiled_digest(of.definition)
    )


def previous_deployment(history: Sequence[Deployment]) -> str | None:
    """The version before the present one, where going back twice goes back two steps.

    `history` is newest first. Deployments push, rollbacks pop.
    """
    stack: list[str] = []
    for entry in reversed(history):
        if entry.action == "rollback":
            if stack:
                stack.pop()
            if not stack or stack[-1] != entry.version_id:
                stack.append(entry.version_id)
        elif not stack or stack[-1] != entry.version_id:
            # Two nodes that start together may both have deployed it.
            stack.append(entry.version_id)
    return stack[-2] if len(stack) > 1 else None
