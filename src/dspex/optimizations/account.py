"""What an attempt costs, on record like any other execution: so keys' budgets, costs and analytics count it."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from dspex.configuration.alerting import AlertThresholds
from dspex.executions.facts import ExecutionFinished
from dspex.executions.ports import Recorder
from dspex.executions.records import Execution, ExecutionError, ExecutionStatus
from dspex.kit.clock import Clock
from dspex.kit.facts import Facts
from dspex.kit.ids import new_id
from dspex.optimizations.records import Counters, Optimization
from dspex.programs.rules import OPTIMIZATIONS


class Account:
    """The execution that stands for one attempt. It is recorded while it runs: its node may die."""

    def __init__(
        self,
        optimization: Optimization,
        before: Counters,
        recorder: Recorder,
        facts: Facts,
        clock: Clock,
        node: str,
        model: str,
    ) -> None:
        plan = optimization.plan
        self._before = before
        self._recorder = recorder
        self._facts = facts
        self._clock = clock
        self._began = clock.monotonic()
        self._noted: Counters | None = None
        now = clock.now()
        inputs: Mapping[str, Any] = {
            "optimization": optimization.id,
            "program": plan.program,
            "version": plan.version,
            "attempt": optimization.attempts,
        }
        self._execution = Execution(
            id=new_id(),
            project=optimization.project,
            request_id=optimization.id,
            program=OPTIMIZATIONS,
            status="running",
            created_at=now,
            node=node,
            inputs=inputs,
            key_id=optimization.author,
            started_at=now,
            model=model,
            executor="pool",
        )

    @property
    def id(self) -> str:
        return self._execution.id

    async def note(self, counters: Counters) -> None:
        """What it has cost so far. Raises Unavailable."""
        if counters != self._noted:
            await self._recorder.record(self._spent(counters), certain=True)
            self._noted = counters

    async def end(
        self, status: ExecutionStatus, counters: Counters, error: ExecutionError | None = None
    ) -> None:
        """Raises Unavailable."""
        took_ms = (self._clock.monotonic() - self._began) * 1000
        execution = replace(
            self._spent(counters),
            status=status,
            error=error,
            completed_at=self._clock.now(),
            duration_ms=round(took_ms, 3),
        )
        await self._recorder.record(execution, certain=True)
        # Hours are no news.
        self._facts.announce(ExecutionFinished(execution, alerts=AlertThresholds(slow_execution_s=86_400)))

    def _spent(self, counters: Counters) -> Execution:
        before = self._before
        unknown = counters.unpriced > before.unpriced
        tokens = {
            "input_tokens": counters.input_tokens - before.input_tokens,
            "output_tokens": counters.output_tokens - before.output_tokens,
        }
        return replace(
            self._execution,
            usage={**tokens, "total_tokens": sum(tokens.values())},
            cost_usd=None if unknown else max(round(counters.spent_usd - before.spent_usd, 12), 0.0),
            saved_usd=max(round(counters.saved_usd - before.saved_usd, 12), 0.0),
        )
