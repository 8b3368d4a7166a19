"""One run of one program: what went in, what came out, what it took."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

ExecutionStatus = Literal["pending", "running", "completed", "failed", "cancelled"]
CacheStatus = Literal["miss", "hit", "off"]
SORTS = ("created_at", "-created_at", "duration_ms", "-duration_ms", "cost_usd", "-cost_usd")
# Characters of JSON in a page of a list: 200 records of the largest inputs and outputs fill no memory.
PAGE_SIZE = 8_000_000


class ExecutionError(Struct, frozen=True):
    """`kind` and `code` as in `kit.errors`; `type` is the class name, DSPy's own where DSPy would raise."""

    kind: str
    code: str
    type: str
    message: str
    retry_after: float | None = None


class Execution(Struct, frozen=True):
    """A final record for synchronous work, a row per transition for background work.

    Durations are milliseconds; `overhead_ms` is time not spent waiting for the provider. `usage` counts
    tokens by type. `cost_usd` is None when the price is unknown. `calls` is the trace: one JSON object
    for each language model call, without the rendered messages (those are derived when a trace is read).
    `steps` are those of a pipeline, in its order, as `executions.steps.StepRun.to_json` has them. `key_id` is None for
    the operator on the machine, who needs no key.
    """

    id: str
    project: str
    request_id: str
    program: str
    status: ExecutionStatus
    created_at: datetime
    node: str
    inputs: Mapping[str, Any]
    program_id: str | None = None
    version_id: str | None = None
    version: int | None = None
    compiled_digest: str | None = None
    session_id: str | None = None
    key_id: str | None = None
    outputs: Mapping[str, Any] | None = None
    error: ExecutionError | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_ms: float | None = None
    overhead_ms: float | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    cost_usd: float | None = None
    saved_usd: float = 0.0
    cache: CacheStatus = "off"
    model: str | None = None
    executor: str | None = None
    simulated: bool = False
    variant: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    violations: tuple[Mapping[str, str], ...] = ()
    calls: tuple[Mapping[str, Any], ...] = ()
    steps: tuple[Mapping[str, Any], ...] = ()

    @property
    def partial(self) -> Mapping[str, Any] | None:
        """Of a pipeline that did not complete: the outputs of the steps that did, by step."""
        if not self.steps or self.status == "completed":
            return None
        return {step["name"]: step["outputs"] for step in self.steps if step["status"] == "completed"}

    @property
    def age_s(self) -> float | None:
        """How old the oldest answer from a cache is that went into this one; None without any, and in lists."""
        return max((one["age_s"] for one in self.calls if one.get("age_s") is not None), default=None)

    @property
    def stale(self) -> bool:
        """Whether an answer was older than the policy wants, because the model could not be reached."""
        return any(one.get("stale") for one in self.calls)


class ExecutionFilter(Struct, frozen=True):
    """Every member given must hold. `since` is inclusive, `until` exclusive, both on created_at."""

    program: str | None = None
    version: int | None = None
    status: ExecutionStatus | None = None
    session_id: str | None = None
    request_id: str | None = None
    key_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class ExecutionStatistics(Struct, frozen=True):
    """Over the executions of a program (or one version). Durations in milliseconds, None without any."""

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


CostGroup = Literal["day", "program", "model", "key"]
COST_GROUPS: tuple[CostGroup, ...] = ("day", "program", "model", "key")


class CostLine(Struct, frozen=True):
    """Costs of one group. `group` has the members that were asked for: `day` (UTC), `program`, `model` (null when

    none was reached), `key` (null without one). `unpriced` counts executions whose price is unknown.
    """

    group: Mapping[CostGroup, str | None]
    executions: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    saved_usd: float
    unpriced: int


METRICS = (
    "duration_ms",
    "overhead_ms",
    "cost_usd",
    "saved_usd",
    "input_tokens",
    "output_tokens",
    "total_tokens",
)


class Distribution(Struct, frozen=True):
    """How a metric was spread over the executions that have it; None without any. Percentiles are interpolated."""

    count: int = 0
    avg: float | None = None
    sum: float = 0.0
    min: float | None = None
    max: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Bucket(Struct, frozen=True):
    """The executions created from `start` to the start of the next one."""

    start: datetime
    distribution: Distribution


class Activity(Struct, frozen=True):
    """What happened in a stretch of time. `sessions` are different ones; executions without a price cost nothing."""

    executions: int
    completed: int
    failed: int
    cache_hits: int
    cache_misses: int
    sessions: int
    cost_usd: float
    saved_usd: float
    duration_p95_ms: float | None

    @property
    def error_rate(self) -> float | None:
        """Failed of completed and failed; None without any."""
        return _share(self.failed, self.completed)

    @property
    def hit_rate(self) -> float | None:
        """Answered from the cache, of those that looked there; None without any."""
        return _share(self.cache_hits, self.cache_misses)


def _share(part: int, rest: int) -> float | None:
    return part / (part + rest) if part + rest else None


class IdempotencyClaim(Struct, frozen=True):
    """Who first used an `Idempotency-Key`, for which body (sha256 hex), and which execution it became."""

    project: str
    key: str
    body_digest: str
    execution_id: str
    node: str
    created_at: datetime
