"""Programs, their immutable versions, and what a version was compiled to."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

from dspex.configuration.alerting import AlertThresholds
from dspex.configuration.caching import CachePolicy
from dspex.configuration.gates import Gates
from dspex.configuration.spending import Budget, RateLimit

Module = Literal[
    "predict",
    "chain_of_thought",
    "react",
    "program_of_thought",
    "best_of_n",
    "refine",
    "multi_chain_comparison",
    "majority",
    "custom",
    "pipeline",
]
Adapter = Literal["chat", "json", "xml", "two_step"]
NATIVE_MODULES: frozenset[str] = frozenset({"predict", "chain_of_thought"})
NATIVE_ADAPTERS: frozenset[str] = frozenset({"chat", "json"})
Executor = Literal["native", "pool", "mock"]
WantedExecutor = Literal["auto", "native", "pool"]
VersionStatus = Literal["draft", "initializing", "ready", "optimized", "deployed", "error"]
ProgramStatus = Literal["draft", "initializing", "ready", "optimized", "deployed", "error", "archived"]
Source = Literal["file", "api"]
# The form of compiled documents that this release writes and reads.
COMPILED_FORMAT = 1
# What a saved state may have beside DSPy's own: how an optimizer composed the program of others.
COMPOSED = "dspex_composed"
EXECUTABLE: frozenset[str] = frozenset({"ready", "optimized", "deployed"})


class LanguageModelChoice(Struct, frozen=True):
    """The model a version is made for: the registry's alias, and what that alias meant at the time.

    `model` is DSPy's spelling ("openai/gpt-4o-mini"); `options` are LM options as `dspy.LM` takes them.
    """

    alias: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)


class Definition(Struct, frozen=True):
    """Everything that decides what a version does. Its canonical JSON is what `digest` covers.

    `signature` is the structured document of `signatures.document`, empty where a custom module has its own; `state`
    is DSPy's own saved JSON
    (instructions, demos) or None. With `mock`, a script of `executions.mock`, no model is asked. `config` are the
    options of the module kind, for a pipeline its steps as in `pipelines.canonical`; `code` the digest of the Python
    files that it refers to.
    """

    signature: Mapping[str, Any]
    module: Module
    adapter: Adapter
    lm: LanguageModelChoice
    state: Mapping[str, Any] | None = None
    mock: Mapping[str, Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None
    executor: WantedExecutor = "auto"


class Version(Struct, frozen=True):
    """One immutable version. `number` counts from 1 within its program; `digest` is sha256 in hex.

    `executor` and `executor_reason` say how it runs and why; `error` says why initializing failed, which a version
    that other releases can run keeps beside its status. `compiled_digest` is where it was compiled to last, by
    whichever release; what one can run it finds under the digest of its own. `signature` is what a program in a pool
    takes and gives, as it was found there; without outputs in it, any may come. `lineage` says how an optimization made
    it, see `optimizations.results`.
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
    signature: Mapping[str, Any] | None = None
    lineage: Mapping[str, Any] | None = None


class Showing(Struct, frozen=True):
    """A version of a program whose prompts show so many rows of a dataset."""

    program: str
    version: int
    status: VersionStatus
    demos: int


class ProgramSettings(Struct, frozen=True):
    """What may change without a new version.

    `timeout_s` bounds one request (None: the node's limit); `on_violation: fail` turns a broken output
    constraint into a failure. `declared` is the digest of the version that the configuration file last asked
    for, and `declared_after` the newest deployment when it began to: until there is a newer one the file's version
    waits to be deployed, and then only a change of the file deploys, so that a rollback survives a restart.
    `declared_in` is that file. Without a `cache` policy the node's holds; `alerts` are thresholds of its own; `gates`
    are what a version has to show before it takes another one's place.
    """

    timeout_s: float | None = None
    on_violation: Literal["report", "fail"] = "report"
    declared: str | None = None
    declared_after: str | None = None
    declared_in: str | None = None
    cache: CachePolicy | None = None
    rate_limit: RateLimit | None = None
    budget: Budget | None = None
    alerts: AlertThresholds | None = None
    gates: Gates | None = None


class Measured(Struct, frozen=True):
    """What is known of a version: its score on held-out examples, 0..1, and US dollars for a prediction.

    `by` says who measured it.
    """

    score: float | None
    cost_usd_per_call: float | None
    by: str


class Program(Struct, frozen=True):
    """A name with versions, one of which may be deployed."""

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


class Deployment(Struct, frozen=True):
    """One line of a program's deployment history; `action` tells a rollback from a deploy."""

    id: str
    project: str
    program_id: str
    version_id: str
    action: Literal["deploy", "rollback"]
    at: datetime


class CompiledDocument(Struct, frozen=True):
    """What the compiler made of a definition, kept for ever. `saved_state` is DSPy's own `module.save` JSON."""

    digest: str
    project: str
    document: Mapping[str, Any]
    saved_state: Mapping[str, Any]
    created_at: datetime
