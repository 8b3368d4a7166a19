"""The one door to the models. A call passes these steps in order: resolve, call, cost, trace."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dspex.configuration.models import ModelSettings
from dspex.gateway.errors import LMError, LMTimeoutError
from dspex.gateway.facts import LanguageModelCalled
from dspex.gateway.ports import LanguageModelClient, Prices
from dspex.gateway.records import (
    CallContext,
    LanguageModelCall,
    LanguageModelReply,
    LanguageModelRequest,
    Usage,
)
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Missing
from dspex.kit.facts import Facts

NO_USAGE = Usage()
CANCELLED: Mapping[str, str] = {
    "kind": "cancelled",
    "code": "cancelled",
    "type": "CancelledError",
    "message": "The call was given up before the model answered.",
}


@dataclass(frozen=True, slots=True)
class _Started:
    at: datetime
    monotonic: float


class LanguageModelGateway:
    """Every alias of `settings` has its client in `clients`."""

    def __init__(
        self,
        clients: Mapping[str, LanguageModelClient],
        settings: Mapping[str, ModelSettings],
        prices: Prices,
        clock: Clock,
        facts: Facts,
    ) -> None:
        self._clients = clients
        self._settings = settings
        self._prices = prices
        self._clock = clock
        self._facts = facts

    async def complete(self, request: LanguageModelRequest, call: CallContext) -> LanguageModelReply:
        """The model's answer. Every attempt, also a failed or cancelled one, is appended to `call.calls`.

        Raises Missing (code unknown_model) for an alias that the registry lacks, LMTimeoutError when the
        model's time limit or the call's deadline passes, other LMErrors as the client does.
        """
        client, limit_s = self._resolve(request.model)
        started = _Started(self._clock.now(), self._clock.monotonic())
        try:
            reply = await self._call(client, request, limit_s, call.deadline, started.monotonic)
        except DspexError as error:
            if isinstance(error, LMError) and error.model is None:
                error.model = request.model
            self._trace(request, call, started, self._waited_ms(started), error=_described(error))
            raise
        except asyncio.CancelledError:
            self._trace(request, call, started, self._waited_ms(started), error=CANCELLED)
            raise
        waited_ms = self._waited_ms(started)
        cost_usd = None
        try:
            cost_usd = await self._prices.cost(request.model, reply.usage, request.options.service_tier)
        finally:
            # Also when the caller leaves while prices are read: the model was paid for.
            self._trace(request, call, started, waited_ms, reply=reply, cost_usd=cost_usd)
        return reply

    async def aclose(self) -> None:
        """Closes every client's connections."""
        await asyncio.gather(*(client.aclose() for client in self._clients.values()))

    def _resolve(self, alias: str) -> tuple[LanguageModelClient, float]:
        try:
            return self._clients[alias], self._settings[alias].timeout_s
        except KeyError:
            known = ", ".join(sorted(self._clients)) or "none"
            raise Missing(
                f"There is no model {alias!r} in models.registry; it has {known}.", code="unknown_model"
            ) from None

    async def _call(
        self,
        client: LanguageModelClient,
        request: LanguageModelRequest,
        limit_s: float,
        deadline: float | None,
        now: float,
    ) -> LanguageModelReply:
        remaining_s = None if deadline is None else deadline - now
        of_model = remaining_s is None or limit_s <= remaining_s
        within_s = limit_s if remaining_s is None or of_model else remaining_s
        if within_s <= 0:
            raise LMTimeoutError("No time was left to call the model; allow the request more time.")
        try:
            async with asyncio.timeout(within_s) as timer:
                return await client.complete(request)
        except TimeoutError:
            if not timer.expired():
                raise
            raise LMTimeoutError(
                f"The model {request.model!r} did not answer within {within_s:.3g} s"
                + (
                    ", its timeout_s; raise it in models.registry if the model is slow."
                    if of_model
                    else ", the time left of the request; allow the request more time."
                )
            ) from None

    def _waited_ms(self, started: _Started) -> float:
        return round((self._clock.monotonic() - started.monotonic) * 1000, 3)

    def _trace(
        self,
        request: LanguageModelRequest,
        call: CallContext,
        started: _Started,
        waited_ms: float,
        *,
        reply: LanguageModelReply | None = None,
        cost_usd: float | None = None,
        error: Mapping[str, str] | None = None,
    ) -> None:
        record = LanguageModelCall(
            model=request.model,
            provider_model=reply.model if reply else request.dialect.model,
            dialect=request.dialect.name,
            adapter=call.adapter,
            started_at=started.at,
            latency_ms=waited_ms,
            attempt=1,
            usage=reply.usage if reply else NO_USAGE,
            cost_usd=cost_usd,
            reply=reply.text if reply else None,
            finish_reason=reply.finish_reason if reply else None,
            simulated=reply.simulated if reply else False,
            error=error,
        )
        call.calls.append(record)
        self._facts.announce(
            LanguageModelCalled(call.execution_id, call.request_id, call.project, call.lane, record)
        )


def _described(error: DspexError) -> dict[str, str]:
    return {"kind": error.kind, "code": error.code, "type": type(error).__name__, "message": error.message}
