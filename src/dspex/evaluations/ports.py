"""What evaluations need from outside."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import Score
from dspex.evaluations.records import (
    Evaluation,
    EvaluationFilter,
    ExampleResult,
    Numbers,
    Pair,
    ResultFilter,
)
from dspex.executions.ports import PoolHost
from dspex.executions.records import Execution
from dspex.jobs.once import Once
from dspex.jobs.records import Job
from dspex.kit.paging import Page


class EvaluationReader(Protocol):
    async def get(self, project: str, evaluation_id: str) -> Evaluation | None: ...

    async def list(
        self, project: str, where: EvaluationFilter, *, limit: int, cursor: str | None
    ) -> Page[Evaluation]:
        """Newest first."""
        ...

    async def results(
        self, project: str, evaluation_id: str, where: ResultFilter, *, limit: int, cursor: str | None
    ) -> Page[ExampleResult]:
        """In the order asked for, ties by position. A page may end early, before its outputs get too large."""
        ...

    async def numbers(self, project: str, evaluation_id: str, *, after: int, limit: int) -> Sequence[Numbers]:
        """Of results behind a position, in order."""
        ...

    async def pairs(
        self, project: str, a: str, b: str, *, changed: bool, after: int, limit: int
    ) -> Sequence[Pair]:
        """The examples behind a position that one of two evaluations has a result of, in order.

        With `changed` only those whose scores differ, or which one of them has no score of.
        """
        ...


class EvaluationStore(EvaluationReader, Protocol):
    async def submit(self, job: Job, evaluation: Evaluation, once: Once | None = None) -> str:
        """Both, committed on return, and the id; or, as `JobStore.add_once`, that of the one that was there first."""
        ...

    async def change(
        self, before: Job, after: Job, evaluation: Evaluation, followers: Sequence[Job] = ()
    ) -> bool:
        """As `jobs.ports.Changes`; of the evaluation status, times and error are replaced.

        One that is begun anew after it was over has its failed results dropped: they are tried again.
        """
        ...

    async def settle(self, job: Job, results: Sequence[ExampleResult], progress: Mapping[str, Any]) -> bool:
        """Writes results, and progress to evaluation and job; one that was there for an example is replaced.

        False, and nothing is written, when the job is somebody else's.
        """
        ...

    async def report(self, job: Job, result: Mapping[str, Any]) -> bool:
        """Writes the report; False when the job is somebody else's."""
        ...

    async def executed(self, project: str, execution_ids: Sequence[str]) -> Mapping[str, Execution]:
        """Those of these executions, some hundred at most, that are on record."""
        ...

    async def delete(self, project: str, evaluation_id: str) -> None:
        """With its results, in batches; the evaluation last."""
        ...


class MetricCase(Struct, frozen=True):
    """One example to be scored, as JSON."""

    inputs: Mapping[str, Any]
    expected: Mapping[str, Any]
    outputs: Mapping[str, Any]


class MetricTask(Struct, frozen=True):
    """Examples for a metric in Python. `code` is the digest of its files, `lm` what its own `dspy.LM` calls go to:

    {"alias", "model", "options"}. `limit_s` is for each example. `id` names what it is done for.
    """

    id: str
    project: str
    request_id: str
    reference: str
    code: str | None
    lm: Mapping[str, Any]
    limit_s: float
    cases: Sequence[MetricCase]


class MetricPools(Protocol):
    """Metrics in Python, in worker processes."""

    async def score(self, task: MetricTask, host: PoolHost) -> Sequence[Score | MetricFailed]:
        """A score or a reason for each example, in order.

        Raises Invalid (code bad_metric) for a metric that can't be had, Conflict (code code_changed), WorkerDied,
        Exhausted when the pool is full, Unavailable.
        """
        ...
