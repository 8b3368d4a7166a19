"""Programs, their immutable versions, and what a version was compiled to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Module = Literal["predict", "chain_of_thought"]
Adapter = Literal["chat", "json"]
Executor = Literal["native", "mock"]
VersionStatus = Literal["draft", "initializing", "ready", "optimized", "deployed", "error"]
ProgramStatus = Literal["draft", "initializing", "ready", "optimized", "deployed", "error", "archived"]
Source = Literal["file", "api"]
# The form of compiled documents that this release writes and reads.
COMPILED_FORMAT = 1
EXECUTABLE: frozenset[str] = frozenset({"ready", "optimized", "deployed"})


@dataclass(frozen=True, slots=True)
class LanguageModelChoice:
    """The model a version is made for: the registry's alias, and what that alias meant at the time.

    `model` is DSPy's spelling ("openai/gpt-4o-mini"); `options` are LM options as `dspy.LM` takes them.
    """

    alias: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Definition:
    """Everything that decides what a version does. Its canonical JSON is what `digest` covers.

    `signature` is the structured document of `signatures.document`; `state` is DSPy's own saved JSON
    (instructions, demos) or None. With `mock`, a script of `executions.mock`, no model is asked.
    """

    signature: Mapping[str, Any]
    module: Module
    adapter: Adapter
    lm: LanguageModelChoice
    state: Mapping[str, Any] | None = None
    mock: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable version. `number` counts from 1 within its program; `digest` is sha256 in hex.

    `executor` and `executor_reason` say how it runs and why; `error` says why initializing failed.
    """

    id: str
    project: str
    program_id: str
    number: int
    digest: str
    definition: Definition
    status: VersionStatus
    created_at: datetime
    executor: Executor | None = None
    executor_reason: str | None = None
    error: str | None = None
    compiled_digest: str | None = None
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class ProgramSettings:
    """What may change without a new version.

    `timeout_s` bounds one request (None: the node's limit); `on_violation: fail` turns a broken output
    constraint into a failure. `declared` is the digest of the version that the configuration file last asked
    for: only a change of it makes the file deploy, so that a rollback survives a restart.
    """

    timeout_s: float | None = None
    on_violation: Literal["report", "fail"] = "report"
    declared: str | None = None


@dataclass(frozen=True, slots=True)
class Program:
    id: str
    project: str
    name: str
    source: Source
    settings: ProgramSettings
    created_at: datetime
    updated_at: datetime
    description: str | None = None
    archived_at: datetime | None = None
    deployed_version_id: str | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """One line of a program's deployment history; `action` tells a rollback from a deploy."""

    id: str
    project: str
    program_id: str
    version_id: str
    action: Literal["deploy", "rollback"]
    at: datetime


@dataclass(frozen=True, slots=True)
class CompiledDocument:
    """What the compiler made of a definition, kept for ever. `saved_state` is DSPy's own `module.save` JSON."""

    digest: str
    project: str
    document: Mapping[str, Any]
    saved_state: Mapping[str, Any]
    created_at: datetime
