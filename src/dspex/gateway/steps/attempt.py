"""The last step: one call of the model within its time, priced and traced."""

import asyncio
from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from dspex.gateway.errors import LMError, LMTimeoutError
from dspex.gateway.facts import LanguageModelCalled
from dspex.gateway.pipeline import Passage, Q, R
from dspex.gateway.ports import Prices
from dspex.gateway.records import (
    EmbeddingRequest,
    LanguageModelCall,
    LanguageModelReply,
    LanguageModelRequest,
    Usage,
)
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError
from dspex.kit.facts import Facts
from dspex.kit.tracing import TraceContext

NO_USAGE = Usage()
# A model that had this share of its own time limit and did not answer is to blame, whoever's limit it was.
FAIR_SHARE = 0.5
CANCELLED: Mapping[str, str] = {
    "kind": "cancelled",
    "code": "cancelled",
    "type": "CancelledError",
    "message": "The call was given up before the model answered.",
}


class _Started(Struct, frozen=True):
    """When and under which span an attempt began."""

    at: datetime
    monotonic: float
    span: TraceContext | None


class Attempt:
    """Appends a line to `context.calls` and announces it, also for a failed or cancelled attempt."""

    def __init__(self, prices: Prices, clock: Clock, facts: Facts) -> None:
        self._prices = prices
        self._clock = clock
        self._facts = facts

    async def __call__(self, passage: Passage[Q, R]) -> R:
        """Raises LMTimeoutError when the model's time limit or the call's deadline passes, else what the client

        raises.
        """
        if passage.context.admission is not None:
            await passage.context.admission()
        trace = passage.context.trace
        span = None if trace is None else trace.child()
        if span is not None:
            passage = replace(passage, request=replace(passage.request, traceparent=span.traceparent))
        sink = passage.context.sink
        if sink is not None and isinstance(passage.request, LanguageModelRequest):
            sink.begin(passage.request.model)
            passage = replace(passage, request=replace(passage.request, sink=sink))
        started = _Started(self._clock.now(), self._clock.monotonic(), span)
        try:
            reply = await _call(passage, started.monotonic)
        except DspexError as error:
            if isinstance(error, LMError):
                error.model = error.model or passage.request.model
                error.attempt = passage.attempt
            self._trace(passage, started, self._waited_ms(started), error=_described(error))
            raise
        except asyncio.CancelledError:
            self._trace(passage, started, self._waited_ms(started), error=CANCELLED)
            raise
        waited_ms = self._waited_ms(started)
        cost_usd = None
        try:
            request = passage.request
            cost_usd = await self._prices.cost(request.model, reply.usage, request.service_tier)
        finally:
            # Also when the caller leaves while prices are read: the model was paid for.
            self._trace(passage, started, waited_ms, reply=reply, cost_usd=cost_usd)
        return reply

    def _waited_ms(self, started: _Started) -> float:
        return round((self._clock.monotonic() - started.monotonic) * 1000, 3)

    def _trace(
        self,
        passage: Passage[Q, R],
        started: _Started,
        waited_ms: float,
        *,
        reply: R | None = None,
        cost_usd: float | None = None,
        error: Mapping[str, str] | None = None,
    ) -> None:
        request, context = passage.request, passage.context
        record = LanguageModelCall(
            model=request.model,
            provider_model=reply.model if reply else request.dialect.model,
            dialect=request.dialect.name,
            adapter=context.adapter,
            started_at=started.at,
            latency_ms=waited_ms,
            attempt=passage.attempt,
            usage=reply.usage if reply else NO_USAGE,
            cost_usd=cost_usd,
            reply=reply.text if isinstance(reply, LanguageModelReply) else None,
            finish_reason=reply.finish_reason if isinstance(reply, LanguageModelReply) else None,
            simulated=reply.simulated if reply else False,
            error=error,
            cache="off" if context.cache.mode == "off" else "miss",
            fallback_for=passage.fallback_for,
            step=context.step,
            request=request if isinstance(request, EmbeddingRequest) else None,
        )
        context.calls.append(record)
        self._facts.announce(LanguageModelCalled(context, record, request, reply, started.span))


async def _call(passage: Passage[Q, R], now: float) -> R:
    limit_s, deadline = passage.settings.timeout_s, passage.context.deadline
    remaining_s = None if deadline is None else deadline - now
    of_model = remaining_s is None or limit_s <= remaining_s
    within_s = limit_s if remaining_s is None or of_model else remaining_s
    if within_s <= 0:
        raise LMTimeoutError(
            "No time was left to call the model; allow the request more time.", cut_short=True
        )
    try:
        async with asyncio.timeout(within_s) as timer:
            return await passage.ask(passage.request)
    except TimeoutError:
        if not timer.expired():
            raise
        raise LMTimeoutError(
            f"The model {passage.request.model!r} did not answer within {within_s:.3g} s"
            + (
                ", its timeout_s; raise it in models.registry if the model is slow."
                if of_model
                else ", the time left of the request; allow the request more time."
            ),
            cut_short=within_s < limit_s * FAIR_SHARE,
        ) from None


def _described(error: DspexError) -> dict[str, str]:
    return {"kind": error.kind, "code": error.code, "type": type(error).__name__, "message": error.message}
