"""The form of what operators see: costs and budgets, keys and the audit log, caches, breakers, alerts, analytics."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class CacheKind(TypedDict):
    """`reply` are answers of models, `prediction` whole predictions, `embedding` vectors of texts. Counted since this

    process started.

    `entries` and `bytes` are those in this process's memory; `hit_rate` is null while nothing was asked for. `stale`
    counts answers that were too old and given because the model could not be reached.
    """

    kind: Literal["reply", "prediction", "embedding"]
    entries: int
    bytes: int
    hits: int
    misses: int
    stale: int
    hit_rate: float | None


class CacheStatistics(TypedDict):
    """`redis` is off without one."""

    redis: Literal["ok", "away", "off"]
    data: list[CacheKind]
    next_cursor: None


class CacheCleared(TypedDict):
    """`project` is null when everything was cleared."""

    project: str | None


class CostLine(TypedDict):
    """Of `day`, `program`, `model` and `key`, those that costs were grouped by."""

    day: NotRequired[str]
    program: NotRequired[str]
    model: NotRequired[str | None]
    key: NotRequired[str | None]
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
    """`unpriced` counts executions whose price is unknown; `total` is the sum of all lines."""

    data: list[CostLine]
    next_cursor: None
    total: CostTotal


class Budget(TypedDict):
    """One budget in its present period, "2026-01-31", "2026-01" or "total".

    `reserved_usd` is what nodes hold for calls to come; `left_usd` is what none has.
    """

    scope: Literal["key", "program", "job"]
    name: str
    period: str
    limit_usd: float
    spent_usd: float
    reserved_usd: float
    left_usd: float
    updated_at: datetime


class RateLimit(TypedDict):
    requests_per_minute: int | None
    tokens_per_minute: int | None


class KeyBudget(TypedDict):
    usd: float
    per: Literal["day", "month", "total"]


class Key(TypedDict):
    """`scopes` are all that the key may do; "*" is everything. `narrowed` says that its role could do more.

    After a rotation the secret before it is good until `previous_until`. `last_used_at` may be a minute late.
    """

    id: str
    project: str
    name: str
    role: Literal["admin", "developer", "caller", "read-only"]
    scopes: list[str]
    narrowed: bool
    status: Literal["active", "expired", "revoked"]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    rotated_at: datetime | None
    previous_until: datetime | None
    last_used_at: datetime | None
    rate_limit: RateLimit | None
    budget: KeyBudget | None


class MadeKey(Key):
    """`key` is the whole key. It is shown this once and stored nowhere."""

    key: str


class AuditLine(TypedDict):
    """`actor` is a key's id, or local, cli, file, unknown. `started`: how it ended could not be written down."""

    id: str
    at: datetime
    actor: str
    action: str
    target: str | None
    outcome: Literal["started", "done", "refused", "failed"]
    request_id: str | None
    details: Mapping[str, Any]


class LaneOccupancy(TypedDict):
    in_flight: int
    waiting: int


class Breaker(TypedDict):
    """One model's. `retry_after` is in seconds: 0 while calls pass, null while an operator holds it open.

    `last_error` is the code of the last failure. `lanes` are the calls of the process that answers, of all
    projects, so only admins see them.
    """

    model: str
    state: Literal["closed", "open", "half_open"]
    failures: int
    successes: int
    since: datetime | None
    retry_after: float | None
    last_error: str | None
    lanes: NotRequired[Mapping[Literal["interactive", "evaluation", "optimization"], LaneOccupancy]]


class Distribution(TypedDict):
    """Over the executions that have the metric; null without any, except `count` and `sum`."""

    count: int
    avg: float | None
    sum: float
    min: float | None
    max: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class AnalyticsBucket(Distribution):
    start: datetime


class Analytics(Distribution):
    """`buckets` is empty unless a length was asked for."""

    metric: str
    program: str | None
    since: datetime
    until: datetime
    buckets: list[AnalyticsBucket]


class OptimizationActivity(TypedDict):
    """Optimizations that ended; `success_rate` is completed of completed and failed, null without any."""

    completed: int
    failed: int
    cancelled: int
    success_rate: float | None


class Activity(TypedDict):
    """Rates are shares from 0 to 1, null without anything to count."""

    executions: int
    completed: int
    failed: int
    error_rate: float | None
    cache_hits: int
    cache_misses: int
    hit_rate: float | None
    active_sessions: int
    duration_p95_ms: float | None
    cost_usd: float
    saved_usd: float
    optimizations: OptimizationActivity


class Summary(TypedDict):
    last_minute: Activity
    last_hour: Activity


class Alert(TypedDict):
    """`value` and `threshold` are seconds for slow executions, a share from 0 to 1 for error rates."""

    id: str
    rule: str
    state: Literal["active", "resolved"]
    program: str
    node: str
    value: float
    threshold: float
    message: str
    raised_at: datetime
    resolved_at: datetime | None


class PoolWorker(TypedDict):
    """`state` is initializing, ready, busy, degraded or terminating, and `reason` why; `node` is its process."""

    node: str
    pid: int
    state: str
    in_flight: int
    served: int
    age_s: float
    memory_bytes: int
    reason: str | None


class Pool(TypedDict):
    """`wanted` workers there should be, `waiting` executions wait for one; `restarts` counts workers that died."""

    name: str
    up: bool
    wanted: int
    waiting: int
    restarts: int
    workers: Sequence[PoolWorker]


class Recycled(TypedDict):
    """`workers` are being replaced; `silent` processes have not said in time how many of theirs."""

    name: str
    workers: int
    silent: Sequence[str]


class ModuleVerdict(TypedDict):
    """`signature` is what the module takes and gives; without outputs in it, any may come."""

    valid: bool
    reason: str | None
    signature: Mapping[str, Any] | None
    predictors: Sequence[str]
