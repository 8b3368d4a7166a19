"""Asking for evaluations, and looking at them."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from dspex.access.records import Principal
from dspex.datasets.service import Datasets
from dspex.evaluations import errors
from dspex.evaluations.checking import check_fit
from dspex.evaluations.comparing import PAGE, compared_examples, comparison
from dspex.evaluations.evidence import Evidence
from dspex.evaluations.metrics.reading import read_metric
from dspex.evaluations.metrics.records import MetricSpec
from dspex.evaluations.models import asked_by, order_of
from dspex.evaluations.ports import EvaluationStore
from dspex.evaluations.records import (
    Evaluation,
    EvaluationFilter,
    ExampleResult,
    Pair,
    ResultFilter,
    Wanted,
)
from dspex.evaluations.report import Tally
from dspex.evaluations.rules import KIND, QUEUE
from dspex.evaluations.scoring import MetricParts
from dspex.executions.catalog import Runnable
from dspex.executions.predictions import Predictions
from dspex.jobs.once import Once
from dspex.jobs.records import Job
from dspex.jobs.service import Jobs
from dspex.kit.clock import Clock
from dspex.kit.errors import Conflict, Invalid, Problem
from dspex.kit.ids import is_id, new_id
from dspex.kit.paging import Page, decode_cursor
from dspex.kit.records import asdict
from dspex.programs.definitions import CodeDigest, code_not_allowed


class Evaluations:
    """`concurrency` is the most examples that one runs at once, and what it runs unless it is told otherwise."""

    def __init__(
        self,
        predictions: Predictions,
        datasets: Datasets,
        jobs: Jobs,
        store: EvaluationStore,
        clock: Clock,
        concurrency: int,
        metrics: MetricParts,
    ) -> None:
        self._predictions = predictions
        self._datasets = datasets
        self._jobs = jobs
        self._store = store
        self._clock = clock
        self._concurrency = concurrency
        self.metrics = metrics

    async def create(
        self,
        principal: Principal,
        wanted: Wanted,
        code: CodeDigest | None,
        *,
        evaluation_id: str | None = None,
        once: Once | None = None,
    ) -> tuple[Evaluation, bool]:
        """The queued evaluation, stored; False with the one that was made `once` before. What could be refused now is.

        `code` is there for whom may name Python code. Raises Missing and NotExecutable as predictions do, Missing for
        the dataset, Invalid: bad_metric, code_not_allowed, bad_reference, dataset_not_fitting, budget_needs_price.
        Conflict: idempotency_key_reused.
        """
        self._jobs.check_engine()
        if (before := await self._jobs.made_before(principal.project, once)) is not None:
            return await self.get(principal.project, before), False
        metric = _with_code(read_metric(wanted.metric), code)
        asked = self.metrics.check_model(metric)
        runnable = await self._predictions.runnable(principal.project, wanted.program, version=wanted.version)
        dataset = await self._datasets.get(principal.project, wanted.dataset, wanted.dataset_version)
        check_fit(runnable, dataset, metric)
        if wanted.budget_usd is not None:
            await self._check_prices(runnable, asked)
        await self.metrics.check_code(metric, principal)
        now = self._clock.now()
        examples = min(wanted.limit or dataset.rows, dataset.rows)
        evaluation = Evaluation(
            id=evaluation_id or new_id(),
            project=principal.project,
            program=runnable.name,
            version=runnable.version or 0,
            dataset=dataset.name,
            dataset_version=dataset.version,
            dataset_id=dataset.id,
            dataset_digest=dataset.digest,
            metric=metric,
            examples=examples,
            concurrency=min(wanted.concurrency or self._concurrency, self._concurrency),
            created_at=now,
            budget_usd=wanted.budget_usd,
            cache=wanted.cache,
            author=principal.key_id,
            progress=Tally(examples).progress(),
        )
        job = _job_of(evaluation, order_of(self.metrics.registry, asked))
        made = await self._store.submit(job, evaluation, once)
        if made != evaluation.id:
            return await self.get(principal.project, made), False
        await self._jobs.wake()
        return evaluation, True

    async def _check_prices(self, runnable: Runnable, asked: str | None) -> None:
        for model in sorted(asked_by(runnable) | ({asked} if asked else set())):
            if not await self.metrics.priced(model):
                raise Invalid(
                    f"A budget needs prices, and that of the model {model!r} is not known. Set `pricing` of the model "
                    "in models.registry, or leave `budget_usd` out.",
                    code="budget_needs_price",
                    problems=[Problem("/budget_usd", "budget_needs_price", f"{model!r} has no known price")],
                )

    async def get(self, project: str, evaluation_id: str) -> Evaluation:
        """Raises Missing (code evaluation_missing)."""
        found = await self._store.get(project, evaluation_id) if is_id(evaluation_id) else None
        if found is None:
            raise errors.missing(evaluation_id)
        return found

    async def list(
        self, project: str, where: EvaluationFilter, *, limit: int, cursor: str | None
    ) -> Page[Evaluation]:
        return await self._store.list(project, where, limit=limit, cursor=cursor)

    async def results(
        self, evaluation: Evaluation, where: ResultFilter, *, limit: int, cursor: str | None
    ) -> Page[ExampleResult]:
        """Also of one that is not over."""
        return await self._store.results(evaluation.project, evaluation.id, where, limit=limit, cursor=cursor)

    async def evidence(self, evaluation: Evaluation) -> Evidence:
        found, after = Evidence(), 0
        while page := await self._store.numbers(evaluation.project, evaluation.id, after=after, limit=PAGE):
            found.add(page)
            after = page[-1].position
        return found

    async def compare(self, a: Evaluation, b: Evaluation) -> dict[str, Any]:
        """See `comparing.comparison`. Raises Conflict (code not_comparable)."""
        return await comparison(self._store, a, b)

    async def compare_examples(
        self, a: Evaluation, b: Evaluation, *, changed: bool, limit: int, cursor: str | None
    ) -> Page[Pair]:
        """With `changed` those whose scores differ. Raises Conflict (code not_comparable)."""
        after = 0 if cursor is None else _position(cursor)
        return await compared_examples(self._store, a, b, changed=changed, after=after, limit=limit)

    async def cancel(self, project: str, evaluation_id: str) -> Evaluation:
        """What is under way is given up, what is scored stays. Raises Missing, Conflict (code job_state)."""
        found = await self.get(project, evaluation_id)
        if found.completed_at is not None:
            raise Conflict(f"The evaluation is {found.status}; there is nothing to cancel.", code="job_state")
        await self._jobs.cancel(project, evaluation_id)
        return await self.get(project, evaluation_id)

    async def delete(self, project: str, evaluation_id: str) -> None:
        """With its results. Raises Missing, Conflict (code evaluation_open) for one that is not over."""
        found = await self.get(project, evaluation_id)
        if found.completed_at is None:
            raise Conflict(
                f"The evaluation is {found.status}; cancel it before you delete it.", code="evaluation_open"
            )
        await self._store.delete(project, evaluation_id)


def _with_code(metric: MetricSpec, code: CodeDigest | None) -> MetricSpec:
    if metric.reference is None:
        return metric
    if code is None:
        raise code_not_allowed([metric.reference], "/metric")
    try:
        return replace(metric, code=code([metric.reference]))
    except Invalid as error:
        raise Invalid(
            f"The metric {metric.reference!r} can't be used: {error.message}",
            code=error.code,
            problems=[Problem("/metric/reference", error.code, error.message)],
        ) from None


def _job_of(evaluation: Evaluation, order: Mapping[str, Any]) -> Job:
    payload: Mapping[str, Any] = {
        **order,
        "version": evaluation.version,
        "dataset": evaluation.dataset,
        "cache": None if evaluation.cache is None else asdict(evaluation.cache),
    }
    return Job(
        id=evaluation.id,
        project=evaluation.project,
        kind=KIND,
        queue=QUEUE,
        created_at=evaluation.created_at,
        due_at=evaluation.created_at,
        payload=payload,
        subject=evaluation.program,
        author=evaluation.author,
        progress=evaluation.progress,
    )


def named(dataset: str) -> tuple[str, int | None]:
    """A dataset's name and version, from "name" or "name@3". Raises Invalid (code bad_request)."""
    name, mark, version = dataset.partition("@")
    if not mark:
        return name, None
    if not (version.isascii() and version.isdigit() and 0 < len(version) <= 9 and int(version) > 0):
        raise Invalid(
            f"{dataset[:80]!r} names no version of a dataset; write it as name@3.",
            code="bad_request",
            problems=[Problem("/dataset", "bad_version", 'a name, or a name and a version as in "name@3"')],
        )
    return name, int(version)


def _position(cursor: str) -> int:
    match decode_cursor(cursor, 1):
        case [int() as position] if 0 <= position < 2**31:
            return position
    raise Invalid(
        "The cursor belongs to another list; leave it out to start from the first page.",
        code="bad_cursor",
        problems=[Problem("/cursor", "bad_cursor", "not a cursor of this list")],
    )
