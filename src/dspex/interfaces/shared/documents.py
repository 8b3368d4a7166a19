"""The documents that callers see, as types: presenters fill them, OpenAPI describes them.

Times are UTC; durations are milliseconds; costs are US dollars, null where the price is unknown.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Literal, NotRequired, TypeVar

from typing_extensions import TypedDict

from dspex.programs.records import Adapter, Module

T = TypeVar("T")


class Listed(TypedDict, Generic[T]):
    """One page. `next_cursor` is null on the last."""

    data: list[T]
    next_cursor: str | None


class Usage(TypedDict):
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None


class Failure(TypedDict):
    kind: str
    code: str
    type: str
    message: str


class StepSummary(TypedDict):
    """A step of a pipeline. `duration_ms` includes waiting for the model; `reason` says why it was skipped."""

    name: str
    status: Literal["pending", "running", "completed", "failed", "skipped", "cancelled"]
    started_at: str | None
    duration_ms: float | None
    usage: Mapping[str, int]
    cost_usd: float | None
    error: NotRequired[Failure]
    reason: NotRequired[str]
    violations: NotRequired[Sequence[Mapping[str, str]]]


class Prediction(TypedDict):
    """Of a pipeline `steps` are there, and `partial` when it failed: what the steps gave that finished, by step."""

    id: str
    request_id: str
    program: str
    version: int | None
    status: Literal["pending", "running", "completed", "failed", "cancelled"]
    outputs: Mapping[str, Any] | None
    model: str | None
    usage: Usage
    cost_usd: float | None
    saved_usd: float
    cache: Literal["miss", "hit", "off"]
    duration_ms: float | None
    overhead_ms: float | None
    error: NotRequired[Failure]
    violations: NotRequired[Sequence[Mapping[str, str]]]
    simulated: NotRequired[bool]
    stale: NotRequired[bool]
    steps: NotRequired[Sequence[StepSummary]]
    partial: NotRequired[Mapping[str, Any]]


class Execution(TypedDict):
    id: str
    request_id: str
    program: str
    version: int | None
    status: Literal["pending", "running", "completed", "failed", "cancelled"]
    outputs: Mapping[str, Any] | None
    model: str | None
    usage: Mapping[str, int]
    cost_usd: float | None
    saved_usd: float
    cache: Literal["miss", "hit", "off"]
    duration_ms: float | None
    overhead_ms: float | None
    error: NotRequired[Failure]
    violations: NotRequired[Sequence[Mapping[str, str]]]
    simulated: NotRequired[bool]
    stale: NotRequired[bool]
    steps: NotRequired[Sequence[Mapping[str, Any]]]
    partial: NotRequired[Mapping[str, Any]]
    inputs: Mapping[str, Any]
    parameters: Mapping[str, Any]
    metadata: Mapping[str, Any]
    session_id: str | None
    key_id: str | None
    executor: str | None
    variant: str | None
    node: str
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class Embedding(TypedDict):
    """`embedding` is base64 of float32 numbers, little-endian, where that was asked for."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    """0 where the provider did not say, and for what was kept."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsKept(TypedDict):
    """Different texts that were kept, and that a model was asked for."""

    hits: int
    misses: int


class Embeddings(TypedDict):
    """What clients of OpenAI's API know, what it cost, and what of it was kept."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    cache: EmbeddingsKept
    cost_usd: float | None
    saved_usd: float
    simulated: NotRequired[bool]


class TracedExecution(Execution):
    """`trace` has one entry for each language model call, with its messages and its reply.

    A pipeline's `steps` come with their outputs.
    """

    trace: list[Mapping[str, Any]]


class Version(TypedDict):
    """`provider_model` and `options` are what the model's alias meant when the version was made.

    `pipeline` has the steps and outputs of one, fully wired. `lineage` says how an optimization made the version: of
    which parent, by which examples, metric and optimizer, for what, and where each demo comes from.
    """

    version: int
    digest: str
    status: Literal["draft", "initializing", "ready", "optimized", "deployed", "error"]
    error: str | None
    executor: Literal["native", "pool", "mock"] | None
    executor_reason: str | None
    signature: Mapping[str, Any]
    module: Module
    pipeline: Mapping[str, Any] | None
    adapter: Adapter
    model: str
    provider_model: str
    options: Mapping[str, Any]
    state: Mapping[str, Any] | None
    mock: Mapping[str, Any] | None
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    lineage: Mapping[str, Any] | None
    created_at: datetime


class ImportedVersion(Version):
    """`notes` say what of the saved state was not taken."""

    notes: list[str]


class CachePolicy(TypedDict):
    """Ages in seconds; null is any age."""

    mode: Literal["on", "off", "read_only", "write_only"]
    max_age_s: float | None
    stale_if_error_s: float


class Program(TypedDict):
    """`version` is the deployed version, or the newest while none is deployed.

    Without a `cache` policy of its own the node's holds.
    """

    name: str
    description: str | None
    status: Literal["draft", "initializing", "ready", "optimized", "deployed", "error", "archived"]
    source: Literal["file", "api"]
    deployed_version: int | None
    timeout_s: float | None
    on_violation: Literal["report", "fail"]
    cache: CachePolicy | None
    rate_limit: Mapping[str, int | None] | None
    budget: Mapping[str, Any] | None
    alerts: Mapping[str, float | None] | None
    gates: Mapping[str, float | None] | None
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None
    version: Version


class Measured(TypedDict):
    """`score` is on held-out examples; `by` says who measured it, by which metric, on what."""

    score: float | None
    cost_usd_per_call: float | None
    by: str


class DeployedProgram(Program):
    """`measured` is what the deployment went by: the evaluation that was named, else how the version was made."""

    measured: Measured | None


class Displaced(TypedDict):
    """The version that the `optimization` made."""

    version: int
    optimization: str | None


class DeclaredProgram(TypedDict):
    """A program of a configuration file: the `version` that the file asks for, and the one that answers (`deployed`).

    `kept_back`: the program's gates do not let it through; `not_ready`: it can't run; `waiting`: the next start or
    reload deploys it; `other_deployed`: somebody deployed another one since the file asked. `code` and `reason` say
    why the file's version does not answer. It answers since it took the place of the `displaced` one, which an
    optimization had made.
    """

    program: str
    version: int
    deployed: int | None
    outcome: Literal["deployed", "kept_back", "not_ready", "waiting", "other_deployed"]
    code: str | None
    reason: str | None
    displaced: Displaced | None


class Change(TypedDict):
    """Null where there was nothing."""

    what: str
    before: Any
    after: Any


class PredictorDifference(TypedDict):
    """`instructions` is null when they are the same."""

    name: str
    instructions: Change | None
    demos_added: list[Any]
    demos_removed: list[Any]
    demos_kept: int


class Difference(TypedDict):
    """`what` is a JSON pointer in `signature`, the name of a setting in `settings`."""

    program: str
    before: int
    after: int
    same: bool
    predictors: list[PredictorDifference]
    signature: list[Change]
    settings: list[Change]


class Statistics(TypedDict):
    program: str
    version: int | None
    executions: int
    completed: int
    failed: int
    success_rate: float | None
    duration_avg_ms: float | None
    duration_p50_ms: float | None
    duration_p95_ms: float | None
    duration_p99_ms: float | None
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost_usd: float
    unpriced: int
    saved_usd: float
    cache_hits: int
    last_executed_at: datetime | None


class Signature(TypedDict):
    name: str
    version: int
    status: Literal["draft", "active", "deprecated"]
    digest: str
    signature: Mapping[str, Any]
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    created_at: datetime


class Spot(TypedDict):
    """One bad spot: `pointer` is a JSON pointer (RFC 6901)."""

    pointer: str
    code: str
    message: str


class SignatureVerdict(TypedDict):
    """`position` is the 0-based character of the first mistake in a signature string."""

    valid: bool
    errors: list[Spot]
    position: NotRequired[int]
    signature: NotRequired[Mapping[str, Any]]


class CheckResult(TypedDict):
    """A check of /ready."""

    name: str
    ok: bool
    detail: NotRequired[str]


class Ready(TypedDict):
    status: Literal["ready"]
    checks: list[CheckResult]


class Health(TypedDict):
    """`breakers` has each model's state."""

    status: Literal["ok"]
    uptime_s: float
    in_flight: int
    breakers: Mapping[str, Literal["closed", "open", "half_open"]]


class Service(TypedDict):
    """`simulated` says that the default model's answers are made up."""

    name: str
    version: str
    simulated: bool
    links: Mapping[str, str]


class Problem(TypedDict):
    """RFC 9457. `kind` says what to do about it, `code` exactly what it is; both are stable."""

    type: str
    title: str
    status: int
    detail: str
    kind: str
    code: str
    request_id: NotRequired[str]
    retry_after: NotRequired[float]
    errors: NotRequired[list[Spot]]
    execution_id: NotRequired[str]
    error_type: NotRequired[str]
    steps: NotRequired[list[StepSummary]]
    partial: NotRequired[Mapping[str, Any]]
    checks: NotRequired[list[CheckResult]]
