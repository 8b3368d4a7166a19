"""So many calls to a model at once, production before tuning."""

import asyncio
from collections.abc import Iterable, Mapping

from msgspec import Struct

from dspex.configuration.models import ModelSettings
from dspex.configuration.resilience import LaneSettings
from dspex.gateway.bulkhead import RANKS, Bulkhead
from dspex.gateway.errors import LaneFull
from dspex.gateway.pipeline import Passage, Proceed, Q, R
from dspex.gateway.records import Lane
from dspex.kit.clock import Clock

_Slot = asyncio.Future[None]
RETRY_S = 1.0


class Occupancy(Struct, frozen=True):
    """Calls of one lane to one model."""

    in_flight: int
    waiting: int


class Lanes:
    """A slot is held for an attempt only, not while a call waits to try again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bulkheads: dict[str, Bulkhead[_Slot]] = {}

    def occupancy(self, model: str) -> Mapping[Lane, Occupancy]:
        bulkhead = self._bulkheads.get(model) or Bulkhead[_Slot](LaneSettings())
        return {lane: Occupancy(bulkhead.in_flight[lane], bulkhead.waiting(lane)) for lane in RANKS}

    def waiting(self) -> Mapping[tuple[str, Lane], int]:
        """Calls that wait, by model and lane, of the models that were called."""
        return {
            (model, lane): bulkhead.waiting(lane)
            for model, bulkhead in self._bulkheads.items()
            for lane in RANKS
        }

    def renew(self, models: Mapping[str, ModelSettings]) -> None:
        """These hold from now on, also for calls that began before: a slot is the model's, not the call's."""
        for model, bulkhead in self._bulkheads.items():
            if model in models:
                _start(bulkhead.renew(models[model].lanes))

    async def __call__(self, passage: Passage[Q, R], *, proceed: Proceed[Q, R]) -> R:
        """Raises LaneFull when no slot is free in time, or too many wait already."""
        model, lane = passage.request.model, passage.context.lane
        bulkhead = self._bulkheads.get(model)
        if bulkhead is None:
            bulkhead = self._bulkheads[model] = Bulkhead(passage.settings.lanes)
        if not bulkhead.enter(lane):
            await self._wait(bulkhead, passage)
        try:
            return await proceed(passage)
        finally:
            _start(bulkhead.leave(lane))

    async def _wait(self, bulkhead: Bulkhead[_Slot], passage: Passage[Q, R]) -> None:
        lane, deadline = passage.context.lane, passage.context.deadline
        limit_s = passage.settings.lanes.wait_s
        if deadline is not None:
            limit_s = min(limit_s, deadline - self._clock.monotonic())
        slot: _Slot = asyncio.get_running_loop().create_future()
        if limit_s <= 0 or not bulkhead.queue(lane, slot):
            raise _full(passage, bulkhead)
        try:
            async with asyncio.timeout(limit_s):
                await slot
        except BaseException as stop:
            if not bulkhead.give_up(lane, slot):
                # The slot came at the very moment: somebody else needs it.
                _start(bulkhead.leave(lane))
            if isinstance(stop, TimeoutError):
                raise _full(passage, bulkhead) from None
            raise


def _start(slots: Iterable[_Slot]) -> None:
    for slot in slots:
        # One that was cancelled gives its slot back itself.
        if not slot.done():
            slot.set_result(None)


def _full(passage: Passage[Q, R], bulkhead: Bulkhead[_Slot]) -> LaneFull:
    model, lane = passage.request.model, passage.context.lane
    return LaneFull(
        f"{bulkhead.in_flight[lane]} {lane} calls to the model {model!r} are in flight and {bulkhead.waiting(lane)} "
        "wait; try again, or raise its `lanes` in models.registry if the provider takes more.",
        model=model,
        retry_after=RETRY_S,
    )
