"""The documents about evaluations that callers see, as types."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from typing_extensions import TypedDict

from dspex.interfaces.shared.job_documents import JobFailure


class Progress(TypedDict):
    """As of the last results written. `mean` is that of the examples scored so far."""

    examples: int
    scored: int
    failed: int
    mean: float | None
    cost_usd: float | None


class Interval(TypedDict):
    """For the mean. `method` is wilson for scores that are all 0 or 1, else t."""

    low: float
    high: float
    level: float
    method: Literal["wilson", "t"]


class FailureCount(TypedDict):
    origin: Literal["program", "infrastructure", "metric", "data"]
    code: str
    examples: int


class Latency(TypedDict):
    p50: float
    p95: float


class Report(TypedDict):
    """`mean` and all that goes with it are of the `scored` examples alone. `stopped` says why some were not run.

    `metric_cost_usd` is the part of `cost_usd` that the metric's own calls of models cost; null where it is not known.
    """

    examples: int
    scored: int
    failed: int
    not_run: int
    mean: float | None
    interval: Interval | None
    median: float | None
    stdev: float | None
    failures: list[FailureCount]
    cost_usd: float | None
    metric_cost_usd: float | None
    lm_calls: int
    tokens: int
    latency_ms: Latency | None
    cached_share: float | None
    stopped: Literal["budget", "cancelled", "failed"] | None


class Evaluation(TypedDict):
    """`result` is there once it is over, and as far as it came while it waits."""

    id: str
    program: str
    version: int
    dataset: str
    dataset_version: int
    dataset_digest: str
    metric: Mapping[str, Any]
    status: Literal["queued", "running", "paused", "completed", "failed", "cancelled"]
    examples: int
    concurrency: int
    budget_usd: float | None
    key_id: str | None
    progress: Progress | None
    result: Report | None
    error: JobFailure | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class ExampleFailure(TypedDict):
    origin: Literal["program", "infrastructure", "metric", "data"]
    kind: str
    code: str
    message: str


class ExampleResult(TypedDict):
    """`position` and `row_id` are those of the row. `score` is null where there is an `error`."""

    position: int
    row_id: str
    execution_id: str | None
    status: Literal["scored", "failed"]
    score: float | None
    fields: Mapping[str, float]
    feedback: str | None
    outputs: Mapping[str, Any] | None
    error: ExampleFailure | None
    latency_ms: float | None
    cost_usd: float | None
    metric_cost_usd: float | None
    cached: bool
    lm_calls: int
    tokens: int


class DeletedEvaluation(TypedDict):
    id: str


class ComparedSide(TypedDict):
    """One of two evaluations, over all of its examples."""

    id: str
    program: str
    version: int
    status: Literal["queued", "running", "paused", "completed", "failed", "cancelled"]
    scored: int
    failed: int
    mean: float | None
    interval: Interval | None
    cost_usd: float | None
    metric_cost_usd: float | None
    lm_calls: int
    tokens: int
    latency_ms: Latency | None
    cached_share: float | None


class Paired(TypedDict):
    """Of the examples that both have a score of. `difference` is b's mean less a's; a win is b's.

    `p_value` is that of a sign-flip permutation test, two-sided; `test` says how it was counted.
    """

    examples: int
    mean_a: float | None
    mean_b: float | None
    difference: float | None
    interval: Interval | None
    wins: int
    losses: int
    ties: int
    p_value: float | None
    test: Literal["exact", "sampled", "normal"] | None


class Comparison(TypedDict):
    a: ComparedSide
    b: ComparedSide
    paired: Paired


class ComparedExample(TypedDict):
    """`difference` is null where one of them has no score."""

    position: int
    row_id: str
    difference: float | None
    a: ExampleResult | None
    b: ExampleResult | None
