"""One run of one program: what went in, what came out, what it took."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

ExecutionStatus = Literal["pending", "running", "completed", "failed", "cancelled"]
CacheStatus = Literal["miss", "hit", "off"]
SORTS = ("created_at", "-created_at", "duration_ms", "-duration_ms", "cost_usd", "-cost_usd")
# Characters of JSON in a page of a list: 200 records of the largest inputs and outputs fill no memory.
PAGE_SIZE = 8_000_000


@dataclass(frozen=True, slots=True)
class ExecutionError:
    """`kind` and `code` as in `kit.errors`; `type` is the class name, DSPy's own where DSPy would raise."""

    kind: str
    code: str
    type: str
    message: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """A final record for synchronous work, a row per transition for background work.

    Durations are milliseconds; `overhead_ms` is time not spent waiting for the provider. `usage` counts
    tokens by type. `cost_usd` is None when the price is unknown. `calls` is the trace: one JSON object
    for each language model call, without the rendered messages (those are derived when a trace is read).
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


@dataclass(frozen=True, slots=True)
class ExecutionFilter:
    """Every member given must hold. `since` is inclusive, `until` exclusive, both on created_at."""

    program: str | None = None
    version: int | None = None
    status: ExecutionStatus | None = None
    session_id: str | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExecutionStatistics:
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


@dataclass(frozen=True, slots=True)
class CostLine:
    """Costs of one (program, model, day); `unpriced` counts executions whose price is unknown."""

    day: str
    program: str
    model: str | None
    executions: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    saved_usd: float
    unpriced: int


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """Who first used an `Idempotency-Key`, for which body (sha256 hex), and which execution it became."""

    project: str
    key: str
    body_digest: str
    execution_id: str
    node: str
    created_at: datetime
