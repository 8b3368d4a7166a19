"""Texts to embed for a caller: a call of the gateway that is on record, since it costs money.

The record is an execution without a program. So costs, budgets of nodes that died, analytics and retention count it
like any other. What is embedded is not on record, only how much of it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from msgspec import Struct

from dspex.access.records import Principal
from dspex.configuration.caching import CachePolicy
from dspex.executions import outcomes
from dspex.executions.facts import ExecutionFinished
from dspex.executions.outcomes import recorded_error
from dspex.executions.ports import Recorder
from dspex.executions.recording import in_any_case
from dspex.executions.records import Execution, ExecutionError, ExecutionStatus
from dspex.executions.requests import Bounds
from dspex.executions.service import DEFECT, GRACE_S
from dspex.gateway.records import (
    CAPPED,
    CallContext,
    Cap,
    EmbeddingReply,
    EmbeddingRequest,
    Lane,
    LanguageModelCall,
)
from dspex.gateway.service import LanguageModelGateway
from dspex.gateway.vectors import NUMBER_BYTES
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Exhausted, Invalid, Missing, Problem, TimedOut
from dspex.kit.facts import Facts
from dspex.kit.ids import new_id
from dspex.kit.tracing import TraceContext
from dspex.kit.waiting import Waiting
from dspex.programs.rules import EMBEDDINGS

log = structlog.get_logger(__name__)
GONE = ExecutionError(
    "cancelled", "cancelled", "CancelledError", "The caller went away, or the node stopped."
)


class EmbeddingOrder(Struct, frozen=True):
    """What a caller asks for. `model` is an alias; `cache` wins over the node's policy."""

    principal: Principal
    request_id: str
    model: str
    texts: tuple[str, ...]
    dimensions: int | None = None
    cache: CachePolicy | None = None
    trace: TraceContext | None = None
    lane: Lane = "interactive"
    cap: Cap | None = None


class Embedded(Struct, frozen=True):
    """Hits and misses count different texts; `execution.error` is the outcome that is one."""

    execution: Execution
    outcome: EmbeddingReply | ExecutionError
    hits: int
    misses: int


class Embeddings:
    """One for each process."""

    def __init__(
        self,
        gateway: LanguageModelGateway,
        recorder: Recorder,
        clock: Clock,
        facts: Facts,
        bounds: Bounds,
        node: str,
        cache: CachePolicy,
    ) -> None:
        self._gateway = gateway
        self._recorder = recorder
        self._clock = clock
        self._facts = facts
        self._bounds = bounds
        self._node = node
        self._policy = cache
        self.in_flight = 0

    async def embed(self, order: EmbeddingOrder) -> Embedded:
        """The vectors, recorded before they are returned; behind, when all of them were kept.

        Raises Invalid and Missing for an order that is wrong and Exhausted over the limit (nothing is recorded then),
        Unavailable when the record can't be stored. Other failures are returned: the execution's `error` says why.
        """
        if self.in_flight >= self._bounds.in_flight:
            raise Exhausted(
                f"This node has {self.in_flight} requests for embeddings in flight, its limit; try again in a moment.",
                code="too_many_in_flight",
                retry_after=1,
            )
        self.in_flight += 1
        try:
            return await self._run(order)
        finally:
            self.in_flight -= 1

    async def _run(self, order: EmbeddingOrder) -> Embedded:
        size = sum(len(text.encode(errors="replace")) for text in order.texts)
        if size > self._bounds.input_bytes:
            raise Invalid(
                f"The texts are larger than {self._bounds.input_bytes} bytes together; make several requests of it.",
                code="inputs_too_large",
                problems=[Problem("/input", "too_large", f"at most {self._bounds.input_bytes} bytes")],
            )
        at, started = self._clock.now(), self._clock.monotonic()
        call = CallContext(
            new_id(),
            order.request_id,
            order.principal,
            EMBEDDINGS,
            lane=order.lane,
            deadline=started + self._bounds.timeout_s,
            cache=order.cache or self._policy,
            trace=None if order.trace is None else order.trace.child(),
            cap=order.cap,
            held=Waiting(self._clock),
        )
        try:
            outcome = await self._asked(order, call)
        except asyncio.CancelledError:
            fact = self._fact(order, call, GONE, at, started)
            await in_any_case(self._recorder.record(fact.execution), lambda: self._facts.announce(fact))
            raise
        fact = self._fact(order, call, outcome, at, started)
        execution = fact.execution
        if execution.cache == "hit" and execution.error is None:
            await self._recorder.record(execution, behind=True)
            self._facts.announce(fact)
        else:
            await in_any_case(self._recorder.record(execution), lambda: self._facts.announce(fact))
        return Embedded(execution, outcome, *_counts(call.calls))

    async def _asked(self, order: EmbeddingOrder, call: CallContext) -> EmbeddingReply | ExecutionError:
        timeout_s = self._bounds.timeout_s
        try:
            # The gateway keeps the deadline; this catches what it can't see.
            async with asyncio.timeout(timeout_s + GRACE_S):
                request = EmbeddingRequest(order.model, order.texts, order.dimensions)
                return await self._gateway.embed(request, call)
        except TimeoutError:
            late = TimedOut(f"The texts were not embedded within {timeout_s:g} s.")
            return recorded_error(late)
        except (Invalid, Missing) as error:
            if not call.calls:
                raise
            return recorded_error(error)
        except DspexError as error:
            return recorded_error(error)
        except Exception as defect:
            # Whatever went wrong, the model may have been paid: the execution has to be on record.
            log.exception("embedding_failed", execution_id=call.execution_id, request_id=order.request_id)
            return ExecutionError("internal", "internal", type(defect).__name__, DEFECT)

    def _fact(
        self,
        order: EmbeddingOrder,
        call: CallContext,
        outcome: EmbeddingReply | ExecutionError,
        at: datetime,
        started: float,
    ) -> ExecutionFinished:
        reply, error = (None, outcome) if isinstance(outcome, ExecutionError) else (outcome, None)
        held_s = 0.0 if call.held is None else call.held.total_s
        duration_ms = (self._clock.monotonic() - started - held_s) * 1000
        # Batches are asked at the same time: what they waited together may be more than it took.
        waited_ms = sum(one.latency_ms for one in call.calls)
        execution = Execution(
            id=call.execution_id,
            project=call.project,
            request_id=order.request_id,
            program=EMBEDDINGS,
            status=_status(error),
            created_at=at,
            node=self._node,
            inputs={"texts": len(order.texts), "characters": sum(map(len, order.texts))},
            key_id=order.principal.key_id,
            outputs=None if reply is None else _size(reply.vectors),
            error=error,
            started_at=at,
            completed_at=self._clock.now(),
            duration_ms=round(duration_ms, 3),
            overhead_ms=round(max(duration_ms - waited_ms, 0.0), 3),
            usage=outcomes.usage(call.calls),
            cost_usd=outcomes.cost(call.calls),
            saved_usd=outcomes.saved(call.calls),
            cache="off" if call.cache.mode == "off" else outcomes.cache_status(call.calls),
            model=order.model,
            simulated=any(one.simulated for one in call.calls),
            parameters={} if order.dimensions is None else {"dimensions": order.dimensions},
            calls=tuple(one.to_json() for one in call.calls),
        )
        return ExecutionFinished(execution, trace=call.trace)


def _status(error: ExecutionError | None) -> ExecutionStatus:
    if error is None:
        return "completed"
    # A cap that has no more room for it says nothing of the model.
    return "cancelled" if error is GONE or error.code == CAPPED else "failed"


def _size(vectors: Sequence[bytes]) -> Mapping[str, Any]:
    return {"vectors": len(vectors), "dimensions": len(vectors[0]) // NUMBER_BYTES}


def _counts(calls: Sequence[LanguageModelCall]) -> tuple[int, int]:
    """Texts that were kept, and texts that a model was asked for."""
    hits = misses = 0
    for call in calls:
        if call.error is None and isinstance(call.request, EmbeddingRequest):
            if call.cache == "hit":
                hits += len(call.request.texts)
            else:
                misses += len(call.request.texts)
    return hits, misses
