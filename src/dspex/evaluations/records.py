"""Evaluations, what came of each example, and what the whole adds up to."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, get_args

from msgspec import Struct, field

from dspex.configuration.caching import CachePolicy
from dspex.evaluations.metrics.records import MetricSpec
from dspex.jobs.records import JobError

EvaluationStatus = Literal["queued", "running", "paused", "completed", "failed", "cancelled"]
STATUSES: tuple[EvaluationStatus, ...] = get_args(EvaluationStatus)
# Whose fault it is that an example has no score.
Origin = Literal["program", "infrastructure", "metric", "data"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)
ResultState = Literal["scored", "failed"]
Order = Literal["position", "score"]


class Evaluation(Struct, frozen=True):
    """A version of a program over a version of a dataset, with a metric. Its job has its id.

    `examples` is how many rows it runs, from the first; at most `concurrency` at once. No call is made that could pass
    `budget_usd`. `progress` is as of the last results written, `result` the report when it is over, or as far as
    it came. `error` says why it failed, or what it waits for while it is queued again. `author` is the key that asked
    for it, None for the operator.
    """

    id: str
    project: str
    program: str
    version: int
    dataset: str
    dataset_version: int
    dataset_id: str
    dataset_digest: str
    metric: MetricSpec
    examples: int
    concurrency: int
    created_at: datetime
    budget_usd: float | None = None
    cache: CachePolicy | None = None
    status: EvaluationStatus = "queued"
    author: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    progress: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    error: JobError | None = None


class ExampleFailure(Struct, frozen=True):
    """Why an example has no score. `kind` and `code` as in `kit.errors`."""

    origin: Origin
    kind: str
    code: str
    message: str


class ExampleResult(Struct, frozen=True):
    """What came of one row of the dataset: a score, or a failure.

    `fields` are the scores that `score` is the mean of. What it took counts everything that was done for the example,
    repetitions and judges included: `cost_usd` is None when a price is unknown, `metric_cost_usd` is the metric's part
    of it, None also where nobody counted it apart. `lm_calls` are those that reached a model, `latency_ms` is that of
    the program's last run. `cached` says that the program's answer was kept.
    """

    position: int
    row_id: str
    execution_id: str | None
    score: float | None = None
    fields: Mapping[str, float] = field(default_factory=dict)
    feedback: str | None = None
    outputs: Mapping[str, Any] | None = None
    failure: ExampleFailure | None = None
    latency_ms: float | None = None
    cost_usd: float | None = 0.0
    metric_cost_usd: float | None = None
    cached: bool = False
    lm_calls: int = 0
    tokens: int = 0

    @property
    def state(self) -> ResultState:
        return "scored" if self.failure is None else "failed"


class Wanted(Struct, frozen=True):
    """An evaluation as it is asked for. `version` None is the deployed one, `dataset_version` None the latest."""

    program: str
    dataset: str
    metric: Any = "exact_match"
    version: int | None = None
    dataset_version: int | None = None
    budget_usd: float | None = None
    concurrency: int | None = None
    limit: int | None = None
    cache: CachePolicy | None = None


class EvaluationFilter(Struct, frozen=True):
    """Every member given must hold."""

    program: str | None = None
    dataset: str | None = None
    status: EvaluationStatus | None = None
    version: int | None = None


class ResultFilter(Struct, frozen=True):
    """`order` "score" has the lowest scores first and leaves out examples that have none."""

    state: ResultState | None = None
    order: Order = "position"


class Numbers(Struct, frozen=True):
    """Of an example's result, what a report adds up."""

    position: int
    score: float | None
    failure: tuple[Origin, str] | None
    latency_ms: float | None
    cost_usd: float | None
    metric_cost_usd: float | None
    cached: bool
    lm_calls: int
    tokens: int


class Pair(Struct, frozen=True):
    """The same example in two evaluations; None where one has not come to it."""

    position: int
    row_id: str
    a: ExampleResult | None
    b: ExampleResult | None
