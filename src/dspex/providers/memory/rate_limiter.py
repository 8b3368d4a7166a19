"""Rate limits kept by one process."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from dspex.gateway.rate_window import WINDOW_S, Charge, Counter, Refusal, Window
from dspex.kit.clock import Clock

COUNTERS = 10_000


class MemoryRateLimiter:
    """A `gateway.ports.RateLimiter`. Nothing awaits inside, so a reservation is atomic.

    `share` is this process's part of every limit, when several share them without knowing of each other. Beyond
    COUNTERS the ones not used for longest are forgotten, which nobody who calls all the time can bring about for
    himself.
    """

    def __init__(self, clock: Clock, share: float = 1.0) -> None:
        self._clock = clock
        self._share = share
        self._windows: OrderedDict[Counter, Window] = OrderedDict()

    async def reserve(self, charges: Sequence[Charge]) -> "MemoryReservation | Refusal":
        now = self._clock.monotonic()
        mine = [self._mine(charge) for charge in charges]
        refusal: Refusal | None = None
        for charge in mine:
            window = self._window(charge.counter, now)
            wait_s = window.wait_s(now, charge.limit, charge.amount)
            if wait_s > (0.0 if refusal is None else refusal.retry_after):
                refusal = Refusal(charge, window.used, wait_s)
        if refusal is None:
            for charge in mine:
                self._windows[charge.counter].add(now, charge.amount)
        self._forget(now, len(mine))
        return refusal or MemoryReservation(self, mine, math.floor(now))

    def settle(self, counter: Counter, second: int, difference: int) -> None:
        """What was used beyond the reservation counts from now; what was not goes back to its second."""
        window = self._windows.get(counter)
        if window is None:
            return
        if difference > 0:
            now = self._clock.monotonic()
            window.advance(now)
            window.add(now, difference)
        elif difference < 0:
            window.give_back(second, -difference)

    def _mine(self, charge: Charge) -> Charge:
        if self._share == 1.0:
            return charge
        limit = max(math.floor(charge.limit * self._share), 1)
        return replace(charge, limit=limit, amount=min(charge.amount, limit))

    def _window(self, counter: Counter, now: float) -> Window:
        window = self._windows.get(counter)
        if window is None:
            window = self._windows[counter] = Window()
        else:
            self._windows.move_to_end(counter)
        window.advance(now)
        return window

    def _forget(self, now: float, brought: int) -> None:
        """Not many more than the call may have brought, so that no call pays for a crowd."""
        for _ in range(brought + 1):
            counter, window = next(iter(self._windows.items()))
            idle = window.second < math.floor(now) - WINDOW_S
            if not idle and len(self._windows) <= COUNTERS:
                return
            del self._windows[counter]


class MemoryReservation(Struct, frozen=True):
    """`gateway.ports.Reservation`."""

    limiter: MemoryRateLimiter
    charges: Sequence[Charge]
    second: int

    def settle(self, requests: int, tokens: int) -> None:
        for charge in self.charges:
            used = requests if charge.counter.unit == "requests" else tokens
            self.limiter.settle(charge.counter, self.second, used - charge.amount)
