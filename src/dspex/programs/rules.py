"""Pure decisions about programs and versions."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from msgspec.structs import replace

from dspex.configuration.settings import PROGRAM_NAME
from dspex.kit import json
from dspex.kit.errors import Conflict
from dspex.kit.records import asdict
from dspex.programs.records import (
    COMPILED_FORMAT,
    Definition,
    Deployment,
    Program,
    ProgramSettings,
    ProgramStatus,
    VersionStatus,
)
from dspex.signatures.records import Field, Signature
from dspex.signatures.types import STR

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
# What executions are of that belong to no program; none may have such a name.
ADHOC, EMBEDDINGS, OPTIMIZATIONS = "adhoc", "embeddings", "optimizations"
_NAME = re.compile(PROGRAM_NAME)


def is_name(name: str) -> bool:
    """Whether a program could have this name; others need not be looked up."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Raises Conflict (code reserved_name)."""
    if name in (ADHOC, EMBEDDINGS, OPTIMIZATIONS):
        raise Conflict(
            f"{name!r} names executions without a program; choose another name.", code="reserved_name"
        )


def check_live(program: Program) -> None:
    """Raises Conflict (code program_archived)."""
    if program.archived_at is not None:
        raise archived(program)


def job_lost() -> Conflict:
    return Conflict("The job was paused, cancelled or given to another worker before that.", code="job_state")


def archived(program: Program) -> Conflict:
    return Conflict(
        f"{program.name!r} is archived; make a program with another name. If a file declared it, put it back there "
        "and run `dspex reload`.",
        code="program_archived",
    )


def check_transition(current: VersionStatus, wanted: VersionStatus) -> None:
    """Raises Conflict (code illegal_transition) for a step the lifecycle does not have."""
    if wanted not in TRANSITIONS[current]:
        raise Conflict(f"A version that is {current} can't become {wanted}.", code="illegal_transition")


# How kinds call what they write down before the outputs; the others run an inner module.
_WRITTEN_DOWN: Mapping[str, str | None] = {
    "predict": None,
    "chain_of_thought": "reasoning",
    "react": "reasoning",
    "program_of_thought": "reasoning",
    "multi_chain_comparison": "rationale",
    "custom": None,
}


def answers_of(signature: Signature, module: str, config: Mapping[str, Any] | None = None) -> Signature:
    """What the module really answers: what it writes down, the author's own if there is one, before the others."""
    inner = (config or {}).get("of", "chain_of_thought")
    name = _WRITTEN_DOWN[module if module in _WRITTEN_DOWN else inner]
    if name is None:
        return signature
    own = [field for field in signature.outputs if field.name == name]
    others = [field for field in signature.outputs if field.name != name]
    return replace(signature, outputs=(*(own or [Field(name, STR)]), *others))


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

    Without the models' aliases, since what is compiled does not depend on our names for them. With the
    versions of the parsers, since a document is checked against DSPy with those.
    """
    return hashlib.sha256(_form() + _content(nameless(definition))).hexdigest()


def nameless(definition: Definition) -> Definition:
    """Without the aliases of models, also of a pipeline's steps."""
    config = definition.config
    if definition.module == "pipeline":
        steps = [{**step, "lm": {**step["lm"], "alias": ""}} for step in config["steps"]]
        config = {**config, "steps": steps}
    return replace(definition, lm=replace(definition.lm, alias=""), config=config)


def signature_digest(reference: str, code: str) -> str:
    """Where the document of a signature class is kept: by its name, the files behind it, and who reads it."""
    return hashlib.sha256(_form() + f" signature {reference} {code}".encode()).hexdigest()


# Members that came later: where they say nothing, a definition keeps the digest that it had before them.
_LATER: Mapping[str, Any] = {"config": {}, "code": None, "executor": "auto"}


def _content(definition: Definition) -> bytes:
    content = {
        name: value
        for name, value in asdict(definition).items()
        if name not in _LATER or value != _LATER[name]
    }
    content["lm"]["options"] = dict(sorted(definition.lm.options.items()))
    return json.dumps(content)


@cache
def _form() -> bytes:
    parsers = [f"{name}=={version(name)}" for name in ("json-repair", "regex", "pydantic")]
    return " ".join([str(COMPILED_FORMAT), *parsers]).encode()


def is_awaited(settings: ProgramSettings, history: Sequence[Deployment]) -> bool:
    """Whether what the file asked for last is still to be deployed: nothing has been since it asked.

    `history` is newest first. What was deployed since, by whomever, is later than the file.
    """
    newest = history[0].id if history else None
    return newest == settings.declared_after


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
