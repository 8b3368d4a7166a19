"""One example: run, tried again where that helps, scored."""

import asyncio

from msgspec import Struct
from msgspec.structs import replace

from dspex.access.records import Principal
from dspex.datasets.records import Row
from dspex.evaluations import rules
from dspex.evaluations.budget import Cap
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.models import Models
from dspex.evaluations.records import Evaluation, ExampleFailure, ExampleResult
from dspex.evaluations.scoring import Answered, Scorer, Scoring
from dspex.executions.background.rules import LEAST_WAIT_S, snooze_s
from dspex.executions.background.running import LANE
from dspex.executions.catalog import Runnable
from dspex.executions.outcomes import recorded_error
from dspex.executions.ports import Recorder
from dspex.executions.predictions import Predictions
from dspex.executions.records import Execution, ExecutionError
from dspex.executions.requests import PredictionRequest
from dspex.jobs.ports import Run
from dspex.kit.errors import Conflict, DspexError, Exhausted, Invalid, Unavailable

# A limit that passes within so many seconds is waited for on the spot, this often; a longer one by the whole job.
HOLD_S, HOLDS = 5.0, 100
BACKOFF_S = 0.5


class Later(Exception):
    """The example can't go on for `after_s` seconds, and neither can others: its turn comes again."""

    def __init__(self, after_s: float, error: ExecutionError) -> None:
        super().__init__(error.message)
        self.after_s = after_s
        self.error = error


class Spent(Exception):
    """The budget of the evaluation, the key or the program is used up."""


class _Took(Struct):
    """What was done for an example so far."""

    cost_usd: float | None = 0.0
    metric_cost_usd: float | None = 0.0
    lm_calls: int = 0
    tokens: int = 0

    def ran(self, execution: Execution) -> None:
        self._add(rules.cost_of(execution), rules.calls_of(execution), rules.tokens_of(execution))

    def scored(self, scoring: Scoring) -> None:
        self.metric_cost_usd = rules.added(self.metric_cost_usd, scoring.cost_usd)
        self._add(scoring.cost_usd, scoring.lm_calls, scoring.tokens)

    def _add(self, cost_usd: float | None, lm_calls: int, tokens: int) -> None:
        self.cost_usd = rules.added(self.cost_usd, cost_usd)
        self.lm_calls += lm_calls
        self.tokens += tokens


class Keeping:
    """`executions.ports.Keeper` of what an evaluation runs: recorded behind, and only what is over.

    A record that is lost with its process costs another run of its example, no more.
    """

    def __init__(self, recorder: Recorder, run: Run, cap: Cap | None, models: Models) -> None:
        self._recorder = recorder
        self._run = run
        self._models = models
        # Once another model than the one that was ordered has answered: nothing is scored from then on.
        self.changed: Conflict | None = None
        self.cap = cap

    async def own(self) -> None:
        await self._run.own()

    async def keep(self, execution: Execution) -> Execution | None:
        if execution.status == "cancelled" and not self._run.cancelled:
            # The worker stops: another one does it.
            return None
        if rules.is_cut_short(execution):
            # No failure of the program's. What was asked and paid for before is on record, nothing else is.
            if not execution.calls:
                return None
            execution = replace(execution, status="cancelled")
        changed = self._models.changed_in(execution)
        if changed is not None:
            # Paid for, so on record; but whoever goes on with the right model must not take it for an answer.
            self.changed = changed
            execution = replace(execution, status="cancelled", outputs=None, error=recorded_error(changed))
        await self._recorder.record(execution, behind=True)
        return execution


class Examples:
    """Runs the examples of one evaluation."""

    def __init__(
        self, evaluation: Evaluation, predictions: Predictions, scorer: Scorer, keeper: Keeping, run: Run
    ) -> None:
        self._evaluation = evaluation
        self._predictions = predictions
        self._scorer = scorer
        self._keeper = keeper
        self._run = run

    async def result(
        self, row: Row, known: Execution | None, runnable: Runnable, principal: Principal
    ) -> ExampleResult:
        """`known` is its execution, if it was run before. Raises Later, Spent, and what ends the evaluation."""
        took = _Took()
        blank = ExampleResult(row.position, row.id, rules.execution_id_of(self._evaluation.id, row.position))
        try:
            execution = await self._executed(row, blank.execution_id or "", known, runnable, principal, took)
        except Invalid as error:
            refused = rules.failure_from(error, "data")
            told = "; ".join(f"{one.pointer} {one.message}" for one in error.problems[:10])
            return replace(
                blank,
                execution_id=None,
                failure=replace(refused, message=f"{refused.message} {told}".strip()),
            )
        blank = replace(
            blank,
            outputs=execution.outputs,
            latency_ms=execution.duration_ms,
            cached=execution.cache == "hit",
        )
        self._check_models()
        if execution.error is not None:
            return _ended(blank, took, rules.failure_of(execution.error))
        answered = Answered(execution.id, row.inputs, row.outputs, execution.outputs or {})
        result = await self._scored(blank, answered, principal, took)
        self._check_models()
        return result

    def _check_models(self) -> None:
        if self._keeper.changed is not None:
            raise self._keeper.changed

    async def _executed(
        self,
        row: Row,
        execution_id: str,
        known: Execution | None,
        runnable: Runnable,
        principal: Principal,
        took: _Took,
    ) -> Execution:
        request = PredictionRequest(
            principal=principal,
            request_id=self._evaluation.id,
            inputs=row.inputs,
            size=row.size,
            metadata={"evaluation": self._evaluation.id, "position": row.position},
            execution_id=execution_id,
            cache=self._evaluation.cache,
            lane=LANE,
            keeper=self._keeper,
        )
        trying = _Trying(self._run)
        while True:
            if known is not None:
                execution, known = known, None
                if self._keeper.cap is not None:
                    self._keeper.cap.count(rules.cost_of(execution) or 0.0)
            else:
                try:
                    execution = await self._predictions.run(runnable, request)
                except (Exhausted, Unavailable) as error:
                    # This process is full, or the database away: nothing was run.
                    await trying.patiently(error)
                    continue
            took.ran(execution)
            if not await trying.again(execution.error):
                return execution

    async def _scored(
        self, blank: ExampleResult, answered: Answered, principal: Principal, took: _Took
    ) -> ExampleResult:
        trying = _Trying(self._run)
        while True:
            try:
                scoring = await self._scorer.score(answered, principal)
            except MetricFailed as failed:
                return _ended(blank, took, rules.failure_from(failed, "metric"))
            except (Exhausted, Unavailable) as error:
                await trying.patiently(error)
                continue
            took.scored(scoring)
            if scoring.score is not None:
                scored = scoring.score
                done = replace(blank, score=scored.value, fields=scored.fields, feedback=scored.feedback)
                return _ended(done, took, None)
            if scoring.failed is not None:
                return _ended(blank, took, rules.failure_from(scoring.failed, "metric"))
            if scoring.error is None:
                raise RuntimeError("a scorer gave neither a score nor a reason")
            if not await trying.again(scoring.error):
                # What the judge said that can't be read is the metric's fault, not that of what it runs on.
                failure = rules.failure_of(scoring.error)
                origin = "metric" if failure.origin == "program" else failure.origin
                return _ended(blank, took, replace(failure, origin=origin))


def _ended(result: ExampleResult, took: _Took, failure: ExampleFailure | None) -> ExampleResult:
    return replace(
        result,
        failure=failure,
        cost_usd=took.cost_usd,
        metric_cost_usd=took.metric_cost_usd,
        lm_calls=took.lm_calls,
        tokens=took.tokens,
    )


class _Trying:
    """How often something was tried, and whether it is worth another time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tries = 0
        self._holds = 0

    async def again(self, error: ExecutionError | None) -> bool:
        """False when it is over; else after a wait. Raises Later for a long one, Spent."""
        if error is None:
            return False
        if error.code in rules.SPENT:
            raise Spent
        wait_s = snooze_s(error)
        if wait_s is not None:
            await self._hold(wait_s, error)
            return True
        if not rules.may_pass(error):
            return False
        self._tries += 1
        if self._tries >= rules.TRIES:
            return False
        if self._run.stopping:
            raise Later(0.0, error)
        await asyncio.sleep(BACKOFF_S * 2**self._tries)
        return True

    async def patiently(self, error: DspexError) -> None:
        """Waits out what is no fault of anybody's, for as long as the job is ours."""
        if error.code in rules.SPENT:
            raise Spent
        if self._run.stopping:
            raise Later(0.0, recorded_error(error))
        await asyncio.sleep(min(max(error.retry_after or 1.0, 0.2), HOLD_S))
        await self._run.own()

    async def _hold(self, wait_s: float, error: ExecutionError) -> None:
        self._holds += 1
        if wait_s > HOLD_S or self._holds > HOLDS or self._run.stopping:
            raise Later(wait_s, error)
        await asyncio.sleep(max(wait_s, LEAST_WAIT_S))
