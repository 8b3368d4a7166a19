"""The documents that callers see, as types: presenters fill them, OpenAPI describes them.

Times are UTC; durations are milliseconds; costs are US dollars, null where the price is unknown.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Literal, NotRequired, TypeVar

from typing_extensions import TypedDict

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


class Prediction(TypedDict):
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
    inputs: Mapping[str, Any]
    parameters: Mapping[str, Any]
    metadata: Mapping[str, Any]
    session_id: str | None
    executor: str | None
    variant: str | None
    node: str
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class TracedExecution(Execution):
    """`trace` has one entry for each language model call, with its messages and its reply."""

    trace: list[Mapping[str, Any]]


class Version(TypedDict):
    """`provider_model` and `options` are what the model's alias meant when the version was made."""

    version: int
    digest: str
    status: Literal["draft", "initializing", "ready", "optimized", "deployed", "error"]
    error: str | None
    executor: Literal["native", "mock"] | None
    executor_reason: str | None
    signature: Mapping[str, Any]
    module: Literal["predict", "chain_of_thought"]
    adapter: Literal["chat", "json"]
    model: str
    provider_model: str
    options: Mapping[str, Any]
    state: Mapping[str, Any] | None
    mock: Mapping[str, Any] | None
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    created_at: datetime


class ImportedVersion(Version):
    """`notes` say what of the saved state was not taken."""

    notes: list[str]


class Program(TypedDict):
    """`version` is the deployed version, or the newest while none is deployed."""

    name: str
    description: str | None
    status: Literal["draft", "initializing", "ready", "optimized", "deployed", "error", "archived"]
    source: Literal["file", "api"]
    deployed_version: int | None
    timeout_s: float | None
    on_violation: Literal["report", "fail"]
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None
    version: Version


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


class CostLine(TypedDict):
    day: str
    program: str
    model: str | None
    executions: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    saved_usd: float
    unpriced: int


class CostTotal(TypedDict):
    executions: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    saved_usd: float
    unpriced: int


class Costs(TypedDict):
    """By day (UTC), program and model. `unpriced` counts executions whose price is unknown."""

    data: list[CostLine]
    next_cursor: None
    total: CostTotal


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
    status: Literal["ok"]
    uptime_s: float
    in_flight: int


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
    checks: NotRequired[list[CheckResult]]
