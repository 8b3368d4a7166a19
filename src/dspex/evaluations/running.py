"""Evaluations as jobs: so many examples at once, written down in groups, gone on with wherever they were left."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct

from dspex.access.records import Principal
from dspex.access.service import Keys
from dspex.datasets.ports import DatasetReader
from dspex.datasets.records import Row
from dspex.evaluations import errors, rules
from dspex.evaluations.budget import Cap
from dspex.evaluations.examples import Examples, Keeping, Later, Spent
from dspex.evaluations.models import Models
from dspex.evaluations.ports import EvaluationStore
from dspex.evaluations.records import Evaluation, ExampleResult
from dspex.evaluations.report import Report, Stopped, Tally
from dspex.evaluations.scoring import MetricParts, Scorer
from dspex.executions.catalog import Runnable
from dspex.executions.ports import Recorder
from dspex.executions.predictions import Predictions
from dspex.executions.records import Execution
from dspex.jobs.ports import JobStore, Run
from dspex.jobs.records import Again, Completed, Failed, Job, JobError, Outcome
from dspex.kit.clock import Clock
from dspex.kit.errors import Unavailable
from dspex.kit.finishing import finished
from dspex.kit.flushing import Flushing

FLUSH_S, FLUSH = 0.5, 200
PAGE, PAGE_BYTES, NUMBERS = 200, 4_000_000, 5000
# A key that is revoked meanwhile, an archived program or a deleted dataset ends it this much later at the latest.
FRESH_S = 10.0
SCOPE = "evaluations:write"
GONE = Failed(JobError("missing", "evaluation_missing", "Its evaluation is no longer on record."))


class EvaluationChanges:
    """`jobs.ports.Changes` of evaluations: each follows its job."""

    def __init__(self, store: EvaluationStore, jobs: JobStore) -> None:
        self._store = store
        self._jobs = jobs

    async def change(self, before: Job, after: Job, followers: Sequence[Job] = ()) -> bool:
        evaluation = await self._store.get(before.project, before.id)
        if evaluation is None:
            return await self._jobs.change(before, after, followers)
        return await self._store.change(before, after, rules.as_its_job(evaluation, after), followers)


class EvaluationHandler:
    def __init__(
        self,
        predictions: Predictions,
        store: EvaluationStore,
        datasets: DatasetReader,
        recorder: Recorder,
        keys: Keys,
        metrics: MetricParts,
        clock: Clock,
    ) -> None:
        self.predictions = predictions
        self.store = store
        self.datasets = datasets
        self.recorder = recorder
        self.keys = keys
        self.metrics = metrics
        self.clock = clock

    async def run(self, run: Run) -> Outcome:
        """Goes on where it was left. Raises what ends the whole: its key, program, dataset or metric is gone."""
        evaluation = await self.store.get(run.job.project, run.job.id)
        if evaluation is None:
            return GONE
        return await _Stretch(self, run, evaluation).run()


class _Standing(Struct, frozen=True):
    """What holds for all examples, as it was read at a monotonic time."""

    principal: Principal
    runnable: Runnable
    at: float


class _Stretch:
    """An evaluation from where it was left until it ends, waits, or its worker stops."""

    def __init__(self, own: EvaluationHandler, run: Run, evaluation: Evaluation) -> None:
        self._own = own
        self._run = run
        self._job = run.job
        self._evaluation = evaluation
        self._tally = Tally(evaluation.examples)
        self._done = bytearray(evaluation.examples + 1)
        self._ended: list[ExampleResult] = []
        self._flushing = Flushing(self._flush, FLUSH_S)
        self._standing: _Standing | None = None
        self._in_flight = 0
        self._moved = asyncio.Event()
        # Why no further example is begun.
        self._over_budget = False
        self._later: Later | None = None

    async def run(self) -> Outcome:
        await self._remember()
        budget = self._evaluation.budget_usd
        cap = None if budget is None else Cap(budget, self._tally.spent_usd)
        models = Models(self._job.payload, self._own.metrics.registry)
        keeping = Keeping(self._own.recorder, self._run, cap, models)
        scorer = await self._own.metrics.scorer(self._evaluation, keeping)
        examples = Examples(self._evaluation, self._own.predictions, scorer, keeping, self._run)
        stopped: Stopped | None = "failed"
        self._flushing.start()
        try:
            standing = await self._look()
            models.check(standing.runnable, self._own.metrics.check_model(self._evaluation.metric))
            await self._work(examples)
            stopped = "budget" if self._over_budget else None
        except asyncio.CancelledError:
            stopped = "cancelled" if self._run.cancelled else None
            raise
        finally:
            # Not to be cancelled once more: what is scored is paid for.
            await finished(self._wind_up(scorer, stopped))
        if self._later is not None and not self._run.stopping:
            return self._again(self._later)
        if self._run.stopping and self._tally.done < self._evaluation.examples and not self._over_budget:
            raise asyncio.CancelledError
        return Completed({**self._tally.progress(), "stopped": stopped})

    async def _wind_up(self, scorer: Scorer, stopped: Stopped | None) -> None:
        await self._flushing.aclose()
        await scorer.aclose()
        await self._write_all(stopped)

    def _again(self, later: Later) -> Again:
        error = JobError(later.error.kind, later.error.code, later.error.message)
        return Again(later.after_s, error, counted=False)

    async def _remember(self) -> None:
        """What runs before this one have written."""
        after = 0
        while found := await self._own.store.numbers(
            self._job.project, self._job.id, after=after, limit=NUMBERS
        ):
            for one in found:
                self._tally.add(one)
                self._done[one.position] = 1
            after = found[-1].position

    async def _work(self, examples: Examples) -> None:
        places: asyncio.Queue[tuple[Row, Execution | None] | None] = asyncio.Queue(maxsize=PAGE)
        concurrency = self._evaluation.concurrency
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(self._take(places, examples))
                async for place in self._open():
                    if self._closing:
                        break
                    await places.put(place)
                for _ in range(concurrency):
                    await places.put(None)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    @property
    def _closing(self) -> bool:
        return self._run.stopping or self._over_budget or self._later is not None

    async def _open(self) -> AsyncIterator[tuple[Row, Execution | None]]:
        """Rows that have no result, each with its execution if an earlier run left one.

        Raises Conflict (code dataset_deleted) where rows are gone.
        """
        evaluation, after = self._evaluation, 0
        resumed = self._job.attempts > 1 or self._job.turn > 0
        while after < evaluation.examples:
            rows = await self._patiently(lambda after=after: self._rows(after))  # type: ignore[misc]
            rows = [row for row in rows if row.position <= evaluation.examples]
            if not rows or rows[-1].position != after + len(rows):
                raise errors.dataset_deleted(evaluation.dataset, evaluation.dataset_version)
            after = rows[-1].position
            open_rows = [row for row in rows if not self._done[row.position]]
            known = await self._patiently(lambda rows=open_rows: self._known(rows)) if resumed else {}  # type: ignore[misc]
            for row in open_rows:
                yield row, known.get(row.position)

    async def _rows(self, after: int) -> list[Row]:
        return list(
            await self._own.datasets.rows(
                self._job.project,
                self._evaluation.dataset_id,
                after=after,
                limit=PAGE,
                most_bytes=PAGE_BYTES,
            )
        )

    async def _known(self, rows: Sequence[Row]) -> dict[int, Execution]:
        """By position."""
        ids = {rules.execution_id_of(self._evaluation.id, row.position): row.position for row in rows}
        found = await self._own.store.executed(self._job.project, list(ids)) if ids else {}
        return {ids[key]: one for key, one in found.items() if rules.is_final(one)}

    async def _patiently(self, read: Callable[[], Awaitable[Any]]) -> Any:
        """However long the database is away, as long as the job is ours."""
        while True:
            try:
                return await read()
            except Unavailable:
                await self._run.own()
                await asyncio.sleep(FLUSH_S)

    async def _take(
        self, places: "asyncio.Queue[tuple[Row, Execution | None] | None]", examples: Examples
    ) -> None:
        while (place := await places.get()) is not None:
            if self._closing or not await self._may_begin():
                # The rest is not for now; it is only taken out of the way.
                continue
            self._in_flight += 1
            try:
                await self._run.own()
                standing = await self._look()
                self._settle(await examples.result(*place, standing.runnable, standing.principal))
            except Later as later:
                if self._later is None or later.after_s > self._later.after_s:
                    self._later = later
            except Spent:
                self._over_budget = True
            finally:
                self._in_flight -= 1
                self._moved.set()

    async def _may_begin(self) -> bool:
        """Whether another example may; beside others only where the dearest so far fits for each of them and for it.

        Until one that a model was asked for tells what that costs, they run one by one. What one alone may spend
        `Cap` says, which knows what each call costs at most.
        """
        budget, tally = self._evaluation.budget_usd, self._tally
        if budget is None:
            return True
        while self._in_flight and not self._closing and tally.spent_usd < budget:
            expected = (self._in_flight + 1) * (tally.dearest_usd or 0.0)
            if tally.dearest_usd is not None and tally.spent_usd + expected <= budget:
                break
            self._moved.clear()
            await self._moved.wait()
        if tally.spent_usd >= budget:
            self._over_budget = True
        return not self._closing

    async def _look(self) -> _Standing:
        """Raises what ends the whole evaluation."""
        now, known = self._own.clock.monotonic(), self._standing
        if known is not None and now - known.at <= FRESH_S:
            return known
        job, evaluation = self._job, self._evaluation
        try:
            principal = await self._own.keys.principal(job.author, job.project, SCOPE)
            runnable = await self._own.predictions.runnable(
                job.project, evaluation.program, version=evaluation.version
            )
            dataset = await self._own.datasets.get(
                job.project, evaluation.dataset, evaluation.dataset_version
            )
        except Unavailable:
            if known is None:
                raise
            return known
        if dataset is None:
            raise errors.dataset_deleted(evaluation.dataset, evaluation.dataset_version)
        self._standing = _Standing(principal, runnable, now)
        return self._standing

    def _settle(self, result: ExampleResult) -> None:
        self._tally.add(result)
        self._ended.append(result)
        if len(self._ended) >= FLUSH:
            self._flushing.soon()

    async def _flush(self) -> None:
        """What can't be written now is written with the next ones: until then the executions tell."""
        ended, self._ended = self._ended, []
        if not ended:
            return
        try:
            await self._own.store.settle(self._job, ended, self._tally.progress())
        except Exception as error:
            self._ended = ended + self._ended
            if not isinstance(error, Unavailable):
                raise

    async def _write_all(self, stopped: Stopped | None) -> None:
        """Everything that came of this stretch, however long the database is away."""
        while True:
            await self._flush()
            if not self._ended:
                break
            await asyncio.sleep(FLUSH_S)
        report = Report(self._evaluation.examples)
        after = 0
        while found := await self._patiently(lambda after=after: self._numbers(after)):  # type: ignore[misc]
            await asyncio.to_thread(report.add, found)
            after = found[-1].position
        document = await asyncio.to_thread(report.document, stopped)
        await self._patiently(lambda: self._own.store.report(self._job, document))

    async def _numbers(self, after: int) -> Any:
        return await self._own.store.numbers(self._job.project, self._job.id, after=after, limit=NUMBERS)
