"""Optimizations: what is asked of a worker, what it answers, and what is kept of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

from dspex.jobs.records import JobError, JobState

ScoredOn = Literal["validation", "train"]


class OptimizerTask(Struct, frozen=True):
    """Everything that a worker needs for one optimization; plain JSON inside.

    `program` is the digest that `definition`, its canonical JSON, is known by; `code` the digest of the Python files
    behind `references`. `metric` is `MetricSpec.document()`. Rows are {"id", "inputs", "outputs"}. `deadline` is on the
    monotonic clock.
    """

    pool: str
    project: str
    optimization_id: str
    attempt: int
    program: str
    definition: bytes
    code: str | None
    references: tuple[str, ...]
    optimizer: str
    config: Mapping[str, Any]
    metric: Mapping[str, Any]
    seed: int
    threads: int
    train: Sequence[Mapping[str, Any]]
    validation: Sequence[Mapping[str, Any]]
    deadline: float
    output_bytes: int


class Optimized(Struct, frozen=True):
    """What an optimizer came to.

    `state` is DSPy's `dump_state` of the best program, without language models. Scores are 0..1, None where the metric
    is not used. `demos` tell where each demonstration came from: {"predictor", "index", "row": id of a row or None,
    "source": "labelled" | "bootstrapped" | ...}. `details` are the optimizer's own, bounded.
    """

    state: Mapping[str, Any]
    baseline_score: float | None
    score: float | None
    scored_on: ScoredOn
    demos: Sequence[Mapping[str, Any]] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


class Examples(Struct, frozen=True):
    """A version of a dataset as it is used: `digest` is over its rows."""

    id: str
    name: str
    version: int
    digest: str

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "digest": self.digest}


class Order(Struct, frozen=True):
    """What a caller asks for, unchecked. `dataset` and `validation` are "name" or "name@2"; `metric` as it is written.

    Without `validation` a share of the dataset is held out.
    """

    program: str
    dataset: str
    version: int | None = None
    validation: str | None = None
    validation_share: float | None = None
    optimizer: str = "BootstrapFewShot"
    metric: Any = "exact_match"
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    threads: int | None = None
    budget_usd: float | None = None
    use_cache: bool = True
    deploy: bool = False
    unique: bool = False
    priority: int | None = None
    webhook: str | None = None


class Plan(Struct, frozen=True):
    """An order with all that it names found and checked: what is the same in every attempt.

    `version` is the number of the version that is to be made better. `config` is the optimizer's effective one,
    `predictors` the names of what it works on. Without `validation`, `validation_share` of the rows are held out.
    `models` are what the aliases of the registry stood for, provider's model and address: answers of others must not
    be mixed in. `ensemble_of` are the numbers of the versions that an Ensemble was told to let vote.
    """

    program: str
    program_id: str
    version_id: str
    version: int
    digest: str
    pool: str
    dataset: Examples
    validation: Examples | None
    validation_share: float | None
    train_rows: int
    validation_rows: int
    optimizer: str
    config: Mapping[str, Any]
    predictors: tuple[str, ...]
    metric: Mapping[str, Any]
    seed: int
    threads: int
    budget_usd: float | None
    use_cache: bool
    deploy: bool
    models: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    ensemble_of: tuple[int, ...] = ()


class Counters(Struct, frozen=True):
    """Of all attempts together. `cost_usd` is what was paid for answers in the journal, `wasted_usd` for calls that

    gave none. `unpriced` calls reached a model whose price is not known. `replayed_calls` were answered from what an
    attempt before had paid for, `repeated_calls` from the same question earlier in the run. `running_s` is the time
    that the optimizer ran.
    """

    lm_calls: int = 0
    failed_calls: int = 0
    replayed_calls: int = 0
    repeated_calls: int = 0
    unpriced: int = 0
    cost_usd: float = 0.0
    wasted_usd: float = 0.0
    saved_usd: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    running_s: float = 0.0

    @property
    def spent_usd(self) -> float:
        return round(self.cost_usd + self.wasted_usd, 12)


class Best(Struct, frozen=True):
    """The best program seen so far. `state` is DSPy's, without language models; `number` its candidate's.

    `score` is its optimizer's own: on all of the examples that it scores by when `full`, and on the very ones that were
    held out when `ours`. Others, of minibatches and of what it learns from, compare with no baseline. `demos` are as in
    `Optimized`.
    """

    score: float
    state: Mapping[str, Any]
    number: int | None = None
    full: bool = False
    ours: bool = False
    demos: tuple[Mapping[str, Any], ...] = ()

    @property
    def held_out_score(self) -> float | None:
        return self.score if self.ours else None


class Standing(Struct, frozen=True):
    """How far an optimization is. `curve` has a point for each candidate: {"number", "score", "best", "cost_usd"}."""

    phase: str | None = None
    baseline_score: float | None = None
    best: Best | None = None
    candidates: int = 0
    of: int | None = None
    iteration: Mapping[str, Any] | None = None
    curve: tuple[Mapping[str, Any], ...] = ()
    counters: Counters = Counters()


class Optimization(Struct, frozen=True):
    """One optimization. It has the id of its job, and outlives it.

    `result` is what it came to; `identity` is the digest of all that decides what it does, for `unique`.
    """

    id: str
    project: str
    plan: Plan
    identity: str
    created_at: datetime
    state: JobState = "queued"
    author: str | None = None
    attempts: int = 0
    standing: Standing = Standing()
    result: Mapping[str, Any] | None = None
    error: JobError | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None


class OptimizationFilter(Struct, frozen=True):
    """Every member given must hold."""

    program: str | None = None
    state: JobState | None = None
    optimizer: str | None = None
    author: str | None = None


class Ended(Struct, frozen=True):
    """How an optimization ended. Scores are those of its result, None without; so is `started_at` when it never ran."""

    project: str
    id: str
    optimizer: str
    state: JobState
    started_at: datetime | None
    completed_at: datetime
    baseline_score: float | None = None
    score: float | None = None


class Event(Struct, frozen=True):
    """Something that happened, numbered from 1 within its optimization."""

    number: int
    at: datetime
    body: Mapping[str, Any]


class Kept(Struct, frozen=True):
    """A question's answer in the journal: the `ordinal`-th time that it was asked.

    `reply` is what the worker was given, or {"error": {"kind", "code", "message"}}.
    """

    digest: str
    ordinal: int
    reply: Mapping[str, Any]
    cost_usd: float | None
    at: datetime


class Totals(Struct, frozen=True):
    """What everything in a journal adds up to; `unpriced` are answers whose price is not known."""

    calls: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
