"""Taking optimizations, and what becomes of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from dspex.access.records import Principal
from dspex.access.rules import check_may, may
from dspex.executions.ports import ExecutionReader
from dspex.gateway.accounting import BYTES_PER_TOKEN
from dspex.gateway.ports import Prices
from dspex.gateway.records import Usage
from dspex.jobs.records import USUAL, Job
from dspex.jobs.service import Jobs
from dspex.kit.clock import Clock
from dspex.kit.ids import new_id
from dspex.kit.paging import Page
from dspex.optimizations import rules
from dspex.optimizations.errors import missing
from dspex.optimizations.estimates import Range, Sizes, calls_of
from dspex.optimizations.planning import Planned, Planner
from dspex.optimizations.ports import OptimizationStore
from dspex.optimizations.records import Event, Optimization, OptimizationFilter, Order, Plan
from dspex.optimizations.results import Results
from dspex.programs.records import Version

# Executions of a program before what they cost says anything of the next ones.
ENOUGH = 5
# Orders looked through at a time: each holds its rows in memory, and has a worker of its own for its optimizer.
AT_ONCE = 2
# Tokens of what DSPy writes around the inputs, and of an answer, where nothing was run yet.
AROUND, ANSWER = 400, 200


@dataclass(frozen=True, slots=True)
class Estimate:
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
    ) -> None:
        self._planner = planner
        self._store = store
        self._jobs = jobs
        self._results = results
        self._executions = executions
        self._prices = prices
        self._clock = clock
        self._planning = asyncio.Semaphore(AT_ONCE)

    async def _plan(self, principal: Principal, order: Order) -> Planned:
        async with self._planning:
            return await self._planner.plan(principal, order)

    async def create(self, principal: Principal, order: Order) -> tuple[Optimization, bool]:
        """The queued optimization; False with the one that is there, where a `unique` one was asked for.

        Raises Missing for what is not there, Invalid for what does not go together, NotExecutable, Unavailable.
        """
        self._jobs.check_engine()
        if order.deploy:
            check_may(principal, "programs:write")
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
        added = await self._store.add(optimization, job, unique=order.unique)
        if added.id != optimization.id:
            return added, False
        await self._jobs.wake()
        return added, True

    async def estimate(self, principal: Principal, order: Order) -> Estimate:
        """What it would take, without beginning it. Raises as `create`."""
        planned = await self._plan(principal, order)
        plan = planned.plan
        judged = plan.metric.get("name") == "lm_judge"
        sizes = Sizes(plan.train_rows, plan.validation_rows, max(len(plan.predictors), 1), judged)
        calls = calls_of(plan.optimizer, plan.config, sizes)
        if calls is None:
            reason = f"How many calls {plan.optimizer} makes can't be told before."
            return Estimate(plan, None, None, None, reason)
        each, basis = await self._cost_of_a_call(principal, planned)
        if each is None:
            reason = f"The price of model {planned.version.definition.lm.alias!r} is not known."
            return Estimate(plan, calls, None, None, reason)
        usd = Range(round(calls.low * each, 6), round(calls.high * each, 6))
        return Estimate(plan, calls, usd, basis, None)

    async def _cost_of_a_call(
        self, principal: Principal, planned: Planned
    ) -> tuple[float | None, str | None]:
        plan, alias = planned.plan, planned.version.definition.lm.alias
        predictors = max(len(plan.predictors), 1)
        if may(principal, "costs:read"):
            seen = await self._executions.statistics(
                principal.project, plan.program, version=plan.version, since=None, until=None
            )
            made = seen.executions - seen.cache_hits
            if made >= ENOUGH and seen.total_tokens:
                usage = Usage(
                    seen.input_tokens // made, seen.output_tokens // made, seen.total_tokens // made
                )
                whole = await self._prices.cost(alias, usage)
                if whole is not None:
                    return whole / predictors, "executions"
        prompt = AROUND + planned.row_bytes // BYTES_PER_TOKEN
        cost = await self._prices.cost(alias, Usage(prompt, ANSWER, prompt + ANSWER))
        return cost, None if cost is None else "prompt"

    async def get(self, project: str, optimization_id: str, author: str | None = None) -> Optimization:
        """Without the state of its best program. Raises Missing (code optimization_missing)."""
        found = await self._store.get(project, optimization_id, whole=False)
        if found is None or author not in (None, found.author):
            raise missing(optimization_id)
        return found

    async def list(
        self, project: str, where: OptimizationFilter, *, limit: int, cursor: str | None
    ) -> Page[Optimization]:
        """Newest first, without the states of their best programs."""
        return await self._store.list(project, where, limit=limit, cursor=cursor)

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
