"""The documents of optimizations, as types. Times are UTC, costs US dollars."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from typing_extensions import TypedDict

from dspex.interfaces.shared.job_documents import JobFailure


class Examples(TypedDict):
    name: str
    version: int
    digest: str


class BestSoFar(TypedDict):
    """`number` is the candidate's; the program itself becomes a version with POST /v1/optimizations/{id}/keep.

    `score` is the optimizer's own, on all of its examples when `full`, on those that were held out when `held_out`.
    """

    score: float
    number: int | None
    full: bool
    held_out: bool


class Optimization(TypedDict):
    """`validation` is null where a share of the dataset is held out instead.

    `cost_usd` is what was spent, null where a price is not known; `lm_calls` are different questions that were
    answered, `replayed_calls` those that an attempt before had paid for, `repeated_calls` the same question again.
    `result` is there at the end; `version` is that of the program that came of it, where it is better.
    """

    id: str
    status: Literal["queued", "running", "paused", "completed", "failed", "cancelled"]
    program: str
    version: int
    optimizer: str
    config: Mapping[str, Any]
    metric: Mapping[str, Any]
    dataset: Examples
    validation: Examples | None
    validation_share: float | None
    train_rows: int
    validation_rows: int
    seed: int
    threads: int
    use_cache: bool
    deploy: bool
    phase: str | None
    iteration: Mapping[str, Any] | None
    candidates: int
    candidates_of: int | None
    baseline_score: float | None
    best: BestSoFar | None
    score: float | None
    result_version: int | None
    cost_usd: float | None
    budget_usd: float | None
    remaining_usd: float | None
    saved_usd: float
    lm_calls: int
    failed_calls: int
    replayed_calls: int
    repeated_calls: int
    unpriced: int
    running_s: float
    attempts: int
    key_id: str | None
    error: JobFailure | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class WholeOptimization(Optimization):
    """`curve` has a point for each candidate."""

    curve: list[Mapping[str, Any]]
    result: Mapping[str, Any] | None


class Range(TypedDict):
    low: float
    high: float


class Estimate(TypedDict):
    """Of a whole optimization, without what a cache answers. `basis` is what the dollars go by: executions of the

    program, or the size of its prompts; `reason` says why something is null.
    """

    program: str
    version: int
    optimizer: str
    config: Mapping[str, Any]
    train_rows: int
    validation_rows: int
    predictors: list[str]
    calls: Range | None
    usd: Range | None
    basis: Literal["executions", "prompt"] | None
    reason: str | None


class KeptVersion(TypedDict):
    program: str
    version: int
    status: str
