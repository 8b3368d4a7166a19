"""Metrics in Python, on the account of their evaluation."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import structlog

from dspex.access.records import Principal
from dspex.configuration.pools import GENERAL
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import MetricSpec, Score
from dspex.evaluations.ports import MetricCase, MetricPools, MetricTask
from dspex.evaluations.records import Evaluation
from dspex.evaluations.scoring import Answered, Scoring
from dspex.executions import outcomes
from dspex.executions.background.running import LANE
from dspex.executions.errors import WorkerDied
from dspex.executions.outcomes import recorded_error
from dspex.executions.pool_host import Host
from dspex.executions.pooled import PooledProgram
from dspex.executions.ports import Keeper
from dspex.executions.records import Execution
from dspex.executions.steps import NO_STEPS
from dspex.gateway.ports import Spellings
from dspex.gateway.records import CACHED, CallContext
from dspex.gateway.service import LanguageModelGateway
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Invalid, Problem, Unavailable
from dspex.kit.ids import new_id
from dspex.programs.records import LanguageModelChoice
from dspex.programs.rules import ADHOC
from dspex.signatures.records import Signature

log = structlog.get_logger(__name__)
# How long whoever asks for an evaluation waits for a worker that looks at its metric.
CHECK_S = 20.0
# Waiting does not help: DSPy, or the pool, is not there.
_FOR_GOOD = frozenset({"no_pool", "pool_missing"})


class NoPool(DspexError):
    """Metrics in Python can't be had here. Not `Unavailable`, which is waited out."""

    kind = "unavailable"
    default_code = "no_pool"


class PythonMetrics:
    def __init__(
        self,
        pools: MetricPools,
        gateway: LanguageModelGateway,
        spellings: Spellings,
        clock: Clock,
        node: str,
    ) -> None:
        self._pools = pools
        self._gateway = gateway
        self._spellings = spellings
        self._clock = clock
        self._node = node

    async def check(self, metric: MetricSpec, principal: Principal, lm: LanguageModelChoice) -> None:
        """Has a worker import the function. Raises Invalid (code bad_metric) with the reason why it can't be used.

        Where no worker can look at it now, whoever scores with it finds out.
        """
        if metric.reference is None:
            return
        call = CallContext(new_id(), new_id(), principal, ADHOC, lane=LANE)
        task = _task(metric, call, lm, ())
        host = Host(_as_program(lm, task), call, self._gateway, self._spellings, NO_STEPS, None)
        try:
            async with asyncio.timeout(CHECK_S):
                await self._pools.score(task, host)
        except Invalid as error:
            problem = Problem("/metric/reference", error.code, error.message)
            raise Invalid(error.message, code=error.code, problems=[problem]) from None
        except (TimeoutError, DspexError) as error:
            log.info("metric_not_looked_at", metric=metric.reference, reason=str(error))

    async def run(
        self,
        evaluation: Evaluation,
        lm: LanguageModelChoice,
        group: Sequence[Answered],
        principal: Principal,
        keeper: Keeper,
    ) -> Sequence[Scoring]:
        """One outcome for each, in order. Raises as `MetricPools.score`, but for workers that die.

        When one dies under several examples, each is scored alone, so that only the one it dies of suffers.
        """
        try:
            return await self._scored(evaluation, lm, group, principal, keeper)
        except WorkerDied as died:
            if len(group) == 1:
                return [Scoring(None, recorded_error(died))]
        return [
            outcome for one in group for outcome in await self.run(evaluation, lm, [one], principal, keeper)
        ]

    async def _scored(
        self,
        evaluation: Evaluation,
        lm: LanguageModelChoice,
        group: Sequence[Answered],
        principal: Principal,
        keeper: Keeper,
    ) -> Sequence[Scoring]:
        metric = evaluation.metric
        call = CallContext(
            new_id(),
            evaluation.id,
            principal,
            ADHOC,
            lane=LANE,
            cache=evaluation.cache or CACHED,
            snoozes=True,
            admission=keeper.own,
            cap=keeper.cap,
        )
        task = _task(metric, call, lm, [MetricCase(one.inputs, one.expected, one.outputs) for one in group])
        host = Host(_as_program(lm, task), call, self._gateway, self._spellings, NO_STEPS, None)
        at, started = self._clock.now(), self._clock.monotonic()
        try:
            found = await self._pools.score(task, host)
        except Unavailable as error:
            if error.code in _FOR_GOOD:
                raise NoPool(error.message, code=error.code) from None
            raise
        finally:
            if call.calls:
                # What a metric asks of models costs money, so it is on record.
                took_ms = (self._clock.monotonic() - started) * 1000
                await keeper.keep(self._execution(evaluation, call, len(group), at, took_ms))
        return _shared(found, call)

    def _execution(
        self, evaluation: Evaluation, call: CallContext, examples: int, at: datetime, took_ms: float
    ) -> Execution:
        waited_ms = outcomes.waited_ms(call.calls)
        return Execution(
            id=call.execution_id,
            project=evaluation.project,
            request_id=evaluation.id,
            program=ADHOC,
            status="completed",
            created_at=at,
            node=self._node,
            inputs={"metric": evaluation.metric.reference, "examples": examples},
            key_id=call.principal.key_id,
            started_at=at,
            completed_at=self._clock.now(),
            duration_ms=round(took_ms, 3),
            overhead_ms=round(max(took_ms - waited_ms, 0.0), 3),
            usage=outcomes.usage(call.calls),
            cost_usd=outcomes.cost(call.calls),
            saved_usd=outcomes.saved(call.calls),
            cache="off" if call.cache.mode == "off" else outcomes.cache_status(call.calls),
            model=outcomes.model(call.calls),
            executor="pool",
            simulated=any(one.simulated for one in call.calls),
            metadata={"evaluation": evaluation.id},
            calls=tuple(one.to_json() for one in call.calls),
        )


def _task(
    metric: MetricSpec, call: CallContext, lm: LanguageModelChoice, cases: Sequence[MetricCase]
) -> MetricTask:
    return MetricTask(
        id=call.execution_id,
        project=call.principal.project,
        request_id=call.request_id,
        reference=metric.reference or "",
        code=metric.code,
        lm={"alias": lm.alias, "model": lm.model, "options": dict(lm.options)},
        limit_s=metric.limit_s,
        cases=cases,
    )


def _as_program(lm: LanguageModelChoice, task: MetricTask) -> PooledProgram:
    """What a host has to know of whoever asks models."""
    return PooledProgram(
        lm.alias,
        lm.model,
        GENERAL,
        task.id,
        b"",
        repeatable=True,
        signature=Signature((), ()),
        references=(task.reference,),
        code=task.code,
    )


def _shared(found: Sequence[Score | MetricFailed], call: CallContext) -> list[Scoring]:
    """What the calls took is shared out evenly: whose they were is not known."""
    cost_usd: float | None = 0.0
    if any(one.error is None for one in call.calls):
        cost_usd = outcomes.cost(call.calls)
    calls = sum(one.cache != "hit" for one in call.calls)
    tokens = outcomes.usage(call.calls).get("total_tokens", 0)
    count = len(found)
    return [
        Scoring(
            None if isinstance(one, MetricFailed) else one,
            failed=one if isinstance(one, MetricFailed) else None,
            cost_usd=None if cost_usd is None else cost_usd / count,
            lm_calls=calls // count + (index < calls % count),
            tokens=tokens // count + (index < tokens % count),
        )
        for index, one in enumerate(found)
    ]
