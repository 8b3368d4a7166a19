"""Runs a program in a worker, and answers its model calls through the gateway."""

from collections.abc import Mapping
from typing import Any

from dspex.executions.errors import WorkerDied
from dspex.executions.facts import PoolCalled, PoolOutcome
from dspex.executions.native.answers import Answer
from dspex.executions.pool_host import Host
from dspex.executions.pooled import PooledProgram
from dspex.executions.ports import Pools, PoolTask
from dspex.executions.steps import NO_STEPS, Progress
from dspex.executions.telling import Teller
from dspex.gateway.ports import Spellings
from dspex.gateway.records import CallContext
from dspex.gateway.service import LanguageModelGateway
from dspex.kit import json
from dspex.kit.clock import Clock
from dspex.kit.errors import Exhausted, TimedOut, Unavailable
from dspex.kit.facts import Facts


class PoolRunner:
    """Runs programs in pools; their model calls go through the gateway on the execution's account."""

    def __init__(
        self,
        pools: Pools,
        gateway: LanguageModelGateway,
        spellings: Spellings,
        clock: Clock,
        facts: Facts,
    ) -> None:
        self._pools = pools
        self._clock = clock
        self._facts = facts
        self._gateway = gateway
        self._spellings = spellings

    async def run(
        self,
        program: PooledProgram,
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Any],
        call: CallContext,
        deadline: float,
        output_bytes: int,
        progress: Progress = NO_STEPS,
        teller: Teller | None = None,
    ) -> Answer:
        """`inputs` are JSON, as they were sent. Raises what the program failed with.

        A teller hears of one call at a time, in a pipeline of one of each step: those made beside it are not streamed.
        """
        task = PoolTask(
            pool=program.pool,
            project=call.project,
            program=program.digest,
            definition=program.definition,
            execution_id=call.execution_id,
            request_id=call.request_id,
            inputs=json.dumps(inputs),
            parameters=json.dumps(parameters),
            deadline=deadline,
            output_bytes=output_bytes,
            repeatable=program.repeatable,
            session_id=call.session_id,
            references=program.references,
            code=program.code,
            traceparent="" if call.trace is None else call.trace.traceparent,
            waiting=call.waiting,
        )
        host = Host(program, call, self._gateway, self._spellings, progress, teller)
        started = self._clock.monotonic()
        outcome: PoolOutcome = "cancelled"
        try:
            answer = await self._pools.run(task, host)
            outcome = "completed"
            return answer
        except Exception as error:
            outcome = _outcome(error)
            raise
        finally:
            took_s = self._clock.monotonic() - started
            self._facts.announce(PoolCalled(program.pool, took_s, outcome))


def _outcome(error: Exception) -> PoolOutcome:
    match error:
        case WorkerDied():
            return "died"
        case TimedOut():
            return "timeout"
        case Exhausted(code="pool_full") | Unavailable(code="pool_unavailable" | "program_breaker_open"):
            return "refused"
    return "failed"
