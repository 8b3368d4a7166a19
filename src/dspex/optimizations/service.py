"""Taking optimizations, and what becomes of them."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from dspex.access.records import Principal
from dspex.access.rules import check_may, may
from dspex.executions.ports import ExecutionReader
from dspex.executions.records import ExecutionStatistics
from dspex.gateway.ports import Prices
from dspex.jobs.once import Once
from dspex.jobs.records import USUAL, Job, JobState
from dspex.jobs.service import Jobs
from dspex.kit.clock import Clock
from dspex.kit.ids import new_id
from dspex.kit.paging import Page
from dspex.optimizations import rules
from dspex.optimizations.costing import by_executions, by_prompt, dollars
from dspex.optimizations.errors import missing
from dspex.optimizations.estimates import Range, Sizes, work_of
from dspex.optimizations.planning import Planned, Planner
from dspex.optimizations.ports import KeptResults, OptimizationStore
from dspex.optimizations.records import Event, Optimization, OptimizationFilter, Order, Plan
from dspex.optimizations.results import Results
from dspex.programs.records import Version

# Orders looked through at a time: each holds its rows in memory, and has a worker of its own for its optimizer.
AT_ONCE = 2


class Estimate(Struct, frozen=True):
    """Model calls, and US dollars for them; `basis` is what the dollars go by, `reason` why something is not known."""

    plan: Plan
    calls: Range | None
    usd: Range | None
    basis: str | None
    reason: str | None


class Optimizations:
    def __init__(
        self,
        planner: Planner,
        store: OptimizationStore,
        jobs: Jobs,
        results: Results,
        executions: ExecutionReader,
        prices: Prices,
        clock: Clock,
        kept: KeptResults,
    ) -> None:
        self._planner = planner
        self._store = store
        self._jobs = jobs
        self._results = results
        self._executions = executions
        self._prices = prices
        self._clock = clock
        self._kept = kept
        self._planning = asyncio.Semaphore(AT_ONCE)

    async def _plan(self, principal: Principal, order: Order) -> Planned:
        async with self._planning:
            return await self._planner.plan(principal, order)

    async def create(
        self, principal: Principal, order: Order, once: Once | None = None
    ) -> tuple[Optimization, bool]:
        """The queued optimization; False with the one that is there, for a `unique` one or one made `once` before.

        Raises Missing for what is not there, Invalid for what does not go together, NotExecutable, Unavailable,
        Conflict (code idempotency_key_reused).
        """
        self._jobs.check_engine()
        if order.deploy:
            check_may(principal, "programs:write")
        if (before := await self._jobs.made_before(principal.project, once)) is not None:
            return await self.get(principal.project, before), False
        planned = await self._plan(principal, order)
        now = self._clock.now()
        optimization = Optimization(
            new_id(),
            principal.project,
            planned.plan,
            rules.identity_of(planned.plan),
            now,
            author=principal.key_id,
        )
        job = Job(
            id=optimization.id,
            project=principal.project,
            kind=rules.KIND,
            queue=rules.QUEUE,
            created_at=now,
            due_at=now,
            payload={"webhook": None if order.webhook is None else {"url": order.webhook}},
            priority=order.priority or USUAL,
            subject=order.program,
            author=principal.key_id,
        )
        added = await self._store.add(optimization, job, unique=order.unique, once=once)
        if added.id != optimization.id:
            return added, False
        await self._jobs.wake()
        return added, True

    async def estimate(self, principal: Principal, order: Order) -> Estimate:
        """What it would take, without beginning it. Raises as `create`."""
        planned = await self._plan(principal, order)
        plan = planned.plan
        judged = plan.metric.get("name") == "lm_judge"
        predictors = max(len(plan.predictors), 1)
        sizes = Sizes(plan.train_rows, plan.validation_rows, predictors, judged, plan.use_cache)
        work = work_of(plan.optimizer, plan.config, sizes)
        if work is None:
            reason = f"How many calls {plan.optimizer} makes can't be told before."
            return Estimate(plan, None, None, None, reason)
        alias = planned.version.definition.lm.alias
        seen = await self._executions_of(principal, plan)
        call = seen and by_executions(seen, predictors, planned.row_bytes)
        basis = "prompt" if call is None else "executions"
        call = call or by_prompt(predictors, planned.row_bytes)
        usd = await dollars(work, call, lambda usage: self._prices.cost(alias, usage))
        if usd is None:
            reason = f"The price of model {alias!r} is not known."
            return Estimate(plan, work.calls, None, None, reason)
        return Estimate(plan, work.calls, usd, basis, None)

    async def _executions_of(self, principal: Principal, plan: Plan) -> ExecutionStatistics | None:
        if not may(principal, "costs:read"):
            return None
        return await self._executions.statistics(
            principal.project, plan.program, version=plan.version, since=None, until=None
        )

    async def get(self, project: str, optimization_id: str, author: str | None = None) -> Optimization:
        """Without the state of its best program. Raises Missing (code optimization_missing)."""
        found = self._kept.get(project, optimization_id)
        if found is None:
            found = await self._store.get(project, optimization_id, whole=False)
            if found is not None and found.state == "completed":
                self._kept.put(found)
        if found is None or author not in (None, found.author):
            raise missing(optimization_id)
        return found

    async def list(
        self, project: str, where: OptimizationFilter, *, limit: int, cursor: str | None
    ) -> Page[Optimization]:
        """Newest first, without the states of their best programs."""
        return await self._store.list(project, where, limit=limit, cursor=cursor)

    async def outcomes(self, project: str, *, since: datetime, until: datetime) -> Mapping[JobState, int]:
        """How many ended in that time, by how."""
        return await self._store.count_ended(project, since=since, until=until)

    async def cancel(self, project: str, optimization_id: str) -> Optimization:
        """It ends within seconds; its best is kept. Raises Missing, Conflict (code job_state)."""
        await self.get(project, optimization_id)
        await self._jobs.cancel(project, optimization_id)
        return await self.get(project, optimization_id)

    async def pause(self, project: str, optimization_id: str) -> Optimization:
        """Raises Missing, Conflict (code job_state)."""
        await self.get(project, optimization_id)
        await self._jobs.pause(project, optimization_id)
        return await self.get(project, optimization_id)

    async def resume(self, project: str, optimization_id: str) -> Optimization:
        """Raises Missing, Conflict (code job_state)."""
        await self.get(project, optimization_id)
        await self._jobs.resume(project, optimization_id)
        return await self.get(project, optimization_id)

    async def keep(self, project: str, optimization_id: str) -> Version:
        """A version of the best found so far. Raises Missing, Conflict (code nothing_found)."""
        found = await self._store.get(project, optimization_id)
        if found is None:
            raise missing(optimization_id)
        return await self._results.keep(found)

    async def events(self, project: str, optimization_id: str, *, after: int, limit: int) -> Sequence[Event]:
        return await self._store.events(project, optimization_id, after=after, limit=limit)
