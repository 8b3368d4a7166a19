"""Identical calls at the same time are made once."""

import asyncio
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from dspex.gateway.errors import LMError, LMTimeoutError
from dspex.gateway.pipeline import Passage, Proceed, Q, R
from dspex.gateway.records import CallContext, Lane, LanguageModelCall
from dspex.gateway.steps.caching import NOTHING_USED
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, another

# Timers fire some milliseconds off.
SLACK_S = 0.02
# A follower that came together with its leader has the same time, but for what lies between two requests.
LONGER_S = 1.0


class _Landed(Struct, frozen=True):
    """What became of a call. Neither reply nor error: whoever led it gave it up. Its key says of which kind it is."""

    reply: Any = None
    line: LanguageModelCall | None = None
    error: DspexError | None = None


class _Flight(Struct, frozen=True):
    """A call that others wait for."""

    leader: CallContext
    landed: "asyncio.Future[_Landed]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class SingleFlight:
    """The first of identical calls of a lane leads; the others wait for its answer and are not charged for it.

    Who follows keeps a deadline of its own. When the leader is cancelled, runs out of its own time or over a limit
    of its own, the next one leads.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # In lanes: who may go first must not wait for somebody who waits for a slot.
        self._flights: dict[tuple[Lane, str], _Flight] = {}

    async def __call__(self, passage: Passage[Q, R], *, proceed: Proceed[Q, R]) -> R:
        """Raises what the leader's call raised, an instance for each; LMTimeoutError at the own deadline."""
        if passage.key is None or not passage.context.cache.reads:
            return await proceed(passage)
        key = (passage.context.lane, passage.key)
        started_at, started = self._clock.now(), self._clock.monotonic()
        while (flight := self._flights.get(key)) is not None:
            landed = await self._wait(passage, flight)
            if landed.error is not None and self._concerns(landed.error, flight.leader, passage.context):
                # A copy: an exception raised in several tasks would collect all their tracebacks.
                raise another(landed.error)
            if landed.reply is not None and landed.line is not None:
                waited_ms = round((self._clock.monotonic() - started) * 1000, 3)
                followed = replace(
                    landed.line,
                    adapter=passage.context.adapter,
                    started_at=started_at,
                    latency_ms=waited_ms,
                    attempt=passage.attempt,
                    usage=NOTHING_USED,
                    cost_usd=0.0,
                    cache="hit",
                    saved_usd=landed.line.cost_usd or 0.0,
                    age_s=0.0,
                    step=passage.context.step,
                )
                passage.context.calls.append(followed)
                reply: R = replace(landed.reply, usage=NOTHING_USED)
                return reply
        return await self._lead(passage, key, proceed)

    async def _lead(self, passage: Passage[Q, R], key: tuple[Lane, str], proceed: Proceed[Q, R]) -> R:
        flight = self._flights[key] = _Flight(passage.context)
        landed = _Landed()
        try:
            reply = await proceed(passage)
            calls = passage.context.calls
            landed = _Landed(reply, calls[-1] if calls else None)
            return reply
        except DspexError as error:
            landed = _Landed(error=another(error))
            raise
        finally:
            del self._flights[key]
            flight.landed.set_result(landed)

    async def _wait(self, passage: Passage[Q, R], flight: _Flight) -> _Landed:
        deadline = passage.context.deadline
        within_s = None if deadline is None else max(deadline - self._clock.monotonic(), 0.0)
        # Unlike awaiting it, this leaves the flight alone when the one who waits is cancelled.
        done, _ = await asyncio.wait([flight.landed], timeout=within_s)
        if not done:
            raise LMTimeoutError(
                f"The model {passage.request.model!r} did not answer an identical call within the time left of the "
                "request; allow the request more time.",
                model=passage.request.model,
            )
        return flight.landed.result()

    def _concerns(self, error: DspexError, leader: CallContext, follower: CallContext) -> bool:
        """Whether the follower would meet the same: not the end of the leader's own time, nor its own limits."""
        if error.kind == "timeout" and leader.deadline is not None:
            return self._clock.monotonic() < leader.deadline - SLACK_S
        if _has_longer(follower, leader) and error.kind in ("exhausted", "unavailable"):
            # The leader may have given up waiting or trying again only because its time was short.
            return False
        return isinstance(error, LMError) or _limited_as(leader) == _limited_as(follower)


def _has_longer(follower: CallContext, leader: CallContext) -> bool:
    if leader.deadline is None:
        return False
    return follower.deadline is None or follower.deadline > leader.deadline + LONGER_S


def _limited_as(context: CallContext) -> tuple[object, ...]:
    return (context.principal.key_id, context.program, context.session_id, context.cap)
