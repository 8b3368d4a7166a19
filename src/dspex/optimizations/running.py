"""Optimizations as jobs: each attempt begins anew and finds in the journal what was paid for before."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from dspex.access.records import Principal
from dspex.access.service import Keys
from dspex.configuration.caching import CachePolicy
from dspex.datasets.records import Row
from dspex.datasets.service import Datasets
from dspex.executions.background.rules import PASSES
from dspex.executions.ports import Recorder
from dspex.executions.records import ExecutionError, ExecutionStatus
from dspex.executions.service import OFF
from dspex.gateway.ports import Prices, Spellings
from dspex.gateway.records import CallContext
from dspex.gateway.service import LanguageModelGateway
from dspex.jobs.ports import Run
from dspex.jobs.records import Again, Completed, Failed, JobError, Outcome
from dspex.jobs.rules import SNOOZE_S, backoff_s, error_of
from dspex.kit import json
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Exhausted, TimedOut, Unavailable
from dspex.kit.facts import Facts
from dspex.kit.finishing import finished
from dspex.kit.flushing import Flushing
from dspex.kit.records import asdict
from dspex.optimizations.account import Account
from dspex.optimizations.examples import rows_of
from dspex.optimizations.host import Host
from dspex.optimizations.journal import Replay
from dspex.optimizations.learned import known_inputs
from dspex.optimizations.ports import Journal, OptimizationStore, Optimizers
from dspex.optimizations.records import Counters, Optimization, Optimized, OptimizerTask, Standing
from dspex.optimizations.report import Report
from dspex.optimizations.results import Ending, Results
from dspex.optimizations.rules import as_example, held_out, most
from dspex.optimizations.spending import Spending
from dspex.optimizations.tuning import Tuners
from dspex.programs.kinds import references_of
from dspex.programs.records import Version
from dspex.programs.rules import OPTIMIZATIONS
from dspex.programs.service import ProgramService

log = structlog.get_logger(__name__)
SCOPE = "optimizations:write"
FLUSH_S = 0.5
NOTE_COST_S = 5.0
# What calls in flight have to be answered and kept: when it ends for good, and when another attempt would pay again.
# Whoever is not told to stop waits longer, for as long as the models may take.
GRACE_S = 1.5
PATIENT_GRACE_S = 10.0
KILL_S = 5.0
GONE = Failed(JobError("missing", "optimization_missing", "Its optimization is no longer on record."))


class Parts(Struct, frozen=True):
    """What attempts are made with. `timeout_s` is how long the optimizer may run, all attempts together until a

    retry by hand.
    """

    optimizers: Optimizers
    gateway: LanguageModelGateway
    spellings: Spellings
    prices: Prices
    programs: ProgramService
    datasets: Datasets
    store: OptimizationStore
    journal: Journal
    recorder: Recorder
    results: Results
    keys: Keys
    clock: Clock
    facts: Facts
    node: str
    cache: CachePolicy
    timeout_s: float
    output_bytes: int
    tuners: Tuners


class OptimizationHandler:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self, run: Run) -> Outcome:
        """Raises Unauthenticated or Forbidden for a key that may no more, Missing for what is gone."""
        parts, job = self._parts, run.job
        found = await parts.store.get(job.project, job.id)
        if found is None:
            return GONE
        optimization = replace(found, attempts=job.attempts)
        principal = await parts.keys.principal(job.author, job.project, SCOPE)
        attempt = await _Attempt.prepared(parts, run, optimization, principal)
        return await attempt.to_the_end()


class _Attempt:
    def __init__(
        self,
        parts: Parts,
        run: Run,
        optimization: Optimization,
        principal: Principal,
        version: Version,
        rows: tuple[Sequence[Row], Sequence[Row]],
        replay: Replay,
        report: Report,
    ) -> None:
        plan, clock = optimization.plan, parts.clock
        self._parts = parts
        self._run = run
        self._optimization = optimization
        self._principal = principal
        self._version = version
        self._train, self._validation = rows
        self._report = report
        self._noted = report.standing.best
        self._flushing = Flushing(self._flush, FLUSH_S)
        self._noting = Flushing(self._note, NOTE_COST_S)
        self._account = Account(
            optimization,
            report.counters,
            parts.recorder,
            parts.facts,
            clock,
            parts.node,
            version.definition.lm.alias,
        )
        call = CallContext(
            self._account.id,
            optimization.id,
            principal,
            OPTIMIZATIONS,
            lane="optimization",
            cache=parts.cache if plan.use_cache else OFF,
            snoozes=True,
            admission=run.own,
        )
        spending = Spending(parts.gateway, parts.prices, plan.budget_usd, report.counters.spent_usd)
        self._host = Host(
            call,
            parts.gateway,
            parts.spellings,
            replay,
            spending,
            report,
            clock,
            plan.threads,
            parts.tuners,
            plan.models,
        )

    @classmethod
    async def prepared(
        cls, parts: Parts, run: Run, optimization: Optimization, principal: Principal
    ) -> "_Attempt":
        """Raises Missing for a version or rows that are gone, Unavailable."""
        plan, project = optimization.plan, optimization.project
        version = await parts.programs.version(project, plan.version_id)
        train = await rows_of(parts.datasets, project, plan.dataset)
        if plan.validation is not None:
            rows = (train, await rows_of(parts.datasets, project, plan.validation))
        else:
            voters = await parts.programs.beside(version, plan.ensemble_of)
            learned = await known_inputs(parts.programs, parts.datasets, [version, *voters])
            rows = held_out(train, plan.validation_share or 0.0, plan.seed, learned)
        replay = await Replay.opened(
            parts.journal, project, optimization.id, parts.clock, reuse=plan.use_cache
        )
        totals = await parts.journal.totals(project, optimization.id)
        standing = optimization.standing
        # What was kept after the last note counts as well, and what was noted even if its answer is gone.
        paid = Counters(lm_calls=totals.calls, cost_usd=round(totals.cost_usd, 12), unpriced=totals.unpriced)
        counters = most(standing.counters, paid)
        last = await parts.store.last_event(project, optimization.id)
        report = Report(replace(standing, counters=counters), last, parts.clock)
        report.say({"event": "status", "status": "running", "attempt": optimization.attempts})
        return cls(parts, run, optimization, principal, version, rows, replay, report)

    async def to_the_end(self) -> Outcome:
        self._run.stop_at_once()
        self._flushing.start()
        self._noting.start()
        self._noting.soon()
        status: ExecutionStatus = "cancelled"
        failed: ExecutionError | None = None
        outcome: Outcome | None = None
        try:
            outcome = await self._outcome()
            status = "completed" if isinstance(outcome, Completed) else "failed"
            if not isinstance(outcome, Completed):
                told = outcome.error
                failed = ExecutionError(told.kind, told.code, "OptimizationError", told.message)
            return outcome
        except DspexError as error:
            status = "failed"
            failed = ExecutionError(error.kind, error.code, type(error).__name__, error.message)
            raise
        finally:
            for_good = self._run.cancelled if outcome is None else not isinstance(outcome, Again)
            await finished(self._wind_up(status, failed, for_good=for_good))

    async def _wind_up(
        self, status: ExecutionStatus, failed: ExecutionError | None, *, for_good: bool
    ) -> None:
        patient = not for_good and not self._run.stopping
        await self._host.close(GRACE_S if for_good else PATIENT_GRACE_S, patient=patient)
        await self._noting.aclose()
        await self._write_all()
        with suppress(Unavailable):
            await self._account.end(status, self._report.counters, failed)

    async def _outcome(self) -> Outcome:
        optimizing = asyncio.create_task(self._parts.optimizers.optimize(self._task(), self._host))
        left_s = self._parts.timeout_s - self._report.counters.running_s
        try:
            await asyncio.wait(
                (optimizing, asyncio.ensure_future(self._host.halted)),
                return_when=asyncio.FIRST_COMPLETED,
                timeout=max(left_s, 0.0) + KILL_S,
            )
            if self._host.halted.done() and not optimizing.done():
                return self._halted(self._host.halted.result())
            if not optimizing.done():
                raise self._too_long()
            return await self._ended(optimizing)
        finally:
            optimizing.cancel()
            await finished(asyncio.wait([optimizing], timeout=KILL_S))

    async def _ended(self, optimizing: "asyncio.Task[Optimized]") -> Outcome:
        try:
            optimized = optimizing.result()
        except Exhausted as error:
            if error.code != "optimization_budget":
                raise
            return await self._at_the_cap(error)
        except TimedOut as error:
            if error.code in ("timeout", "optimization_timeout"):
                raise self._too_long() from None
            raise
        stopped = optimized.details.get("stopped")
        return await self._concluded(optimized, stopped if isinstance(stopped, str) else None)

    async def _at_the_cap(self, error: DspexError) -> Outcome:
        """The best that was told of, where the optimizer had no time to say more."""
        standing = self._report.standing
        if standing.best is None:
            return Failed(error_of(error))
        best = Optimized(
            standing.best.state,
            standing.baseline_score,
            standing.best.held_out_score,
            "validation",
            standing.best.demos,
            details={"candidate": standing.best.number},
        )
        return await self._concluded(best, "budget")

    async def _concluded(self, optimized: Optimized, stopped: str | None) -> Outcome:
        if optimized.baseline_score is not None:
            self._report.baseline(optimized.baseline_score)
        standing = self._standing_now()
        ending = Ending(optimized, stopped, self._cost_per_call(standing, stopped))
        result, deployable = await self._parts.results.conclude(self._optimization, standing, ending)
        if deployable is None:
            return self._completed(result)
        # Whoever cancels it from here on comes too late: what answers now must not be on record as cancelled.
        return await finished(self._deployed(result, deployable))

    async def _deployed(self, result: dict[str, Any], version: Version) -> Outcome:
        own = (self._principal, self._run.job)
        outcome = self._completed(
            result | await self._parts.results.deployed(self._optimization, version, *own)
        )
        # Who has settled notes no more events.
        await self._write_all()
        await self._run.settle(outcome)
        return outcome

    def _completed(self, result: dict[str, Any]) -> Completed:
        self._report.say(
            {"event": "result", **{name: result[name] for name in ("score", "baseline_score", "version")}}
        )
        return Completed(json.loads(json.dumps(result)))

    def _standing_now(self) -> Standing:
        return replace(self._report.standing, counters=self._report.counters)

    def _cost_per_call(self, standing: Standing, stopped: str | None) -> float | None:
        """Of one prediction of the result, as seen while it was scored; None where not all rows were."""
        rows = len(self._validation)
        if stopped is not None or standing.phase != "scoring" or not rows or standing.counters.unpriced:
            return None
        return round(self._report.phase_worth / rows, 12)

    def _halted(self, error: DspexError) -> Outcome:
        told = error_of(error)
        if error.code in PASSES or isinstance(error, Exhausted):
            wait_s = min(max(error.retry_after or SNOOZE_S, 1.0), SNOOZE_S)
            return Again(wait_s, told, counted=False)
        if error.kind in ("unavailable", "timeout"):
            wait_s = max(backoff_s(self._run.job.attempts), min(error.retry_after or 0.0, SNOOZE_S))
            return Again(wait_s, told)
        return Failed(told)

    def _too_long(self) -> TimedOut:
        return TimedOut(
            f"The optimizer did not end within {self._parts.timeout_s:g} s. The best that it found is kept: POST "
            f"/v1/optimizations/{self._optimization.id}/keep makes a version of it.",
            code="optimization_timeout",
        )

    def _task(self) -> OptimizerTask:
        optimization, definition = self._optimization, self._version.definition
        plan = optimization.plan
        left_s = self._parts.timeout_s - self._report.counters.running_s
        return OptimizerTask(
            pool=plan.pool,
            project=optimization.project,
            optimization_id=optimization.id,
            attempt=optimization.attempts,
            program=plan.digest,
            definition=json.dumps(asdict(definition)),
            code=definition.code,
            references=tuple(references_of(definition.config)),
            optimizer=plan.optimizer,
            config=plan.config,
            metric=plan.metric,
            seed=plan.seed,
            threads=plan.threads,
            train=[as_example(row) for row in self._train],
            validation=[as_example(row) for row in self._validation],
            deadline=self._parts.clock.monotonic() + max(left_s, 0.0),
            output_bytes=self._parts.output_bytes,
        )

    async def _write_all(self) -> None:
        """However long the database is away: the journal has the calls, nothing else has the rest."""
        await self._flushing.aclose()
        while True:
            if await self._flush():
                return
            await asyncio.sleep(FLUSH_S)

    async def _flush(self) -> bool:
        """What can't be written now is written with what comes next."""
        taken = self._report.taken()
        if taken is None:
            return True
        standing, events = taken
        # Its state may be long: it is written when there is another one.
        best = standing.best is not self._noted
        try:
            if await self._parts.store.note(self._run.job, standing, events, best=best):
                self._noted = standing.best
            else:
                # Paused, or somebody else's by now: what was paid here is paid all the same.
                place = (self._optimization.project, self._optimization.id)
                await self._parts.store.spent(*place, standing.counters)
        except Exception as error:
            self._report.lost(events)
            if not isinstance(error, Unavailable):
                raise
            log.warning("optimization_not_noted", optimization=self._optimization.id, reason=error.message)
            return False
        return True

    async def _note(self) -> None:
        try:
            await self._account.note(self._report.counters)
        except Unavailable as error:
            log.warning("cost_not_noted", optimization=self._optimization.id, reason=error.message)
