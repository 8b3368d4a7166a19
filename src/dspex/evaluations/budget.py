"""An evaluation's budget: what a call may cost is set aside before it, what it did cost is counted after."""

import asyncio

from dspex.kit.errors import Exhausted
from dspex.kit.wording import usd_text

# What sums of binary fractions may be off.
NOISE_USD = 1e-9


class Cap:
    """`gateway.records.Cap`: what is spent and what calls in flight may cost never pass the limit together.

    A call that does not fit beside those in flight waits for them; one that does not fit at all is refused.
    """

    def __init__(self, limit_usd: float, spent_usd: float) -> None:
        self._limit = limit_usd
        self._spent = spent_usd
        self._aside = 0.0
        self._in_flight = 0
        self._settled = asyncio.Condition()

    async def reserve(self, usd: float) -> None:
        """Raises Exhausted (code evaluation_budget)."""
        async with self._settled:
            while self._spent + self._aside + usd > self._limit + NOISE_USD:
                if not self._in_flight:
                    raise Exhausted(
                        f"The budget of the evaluation, {usd_text(self._limit)}, is used up: "
                        f"{usd_text(self._spent)} is spent, and the next call may cost {usd_text(usd)}.",
                        code="evaluation_budget",
                    )
                await self._settled.wait()
            self._aside += usd
            self._in_flight += 1

    async def settle(self, reserved_usd: float, cost_usd: float) -> None:
        self._aside -= reserved_usd
        self._in_flight -= 1
        self._spent += cost_usd
        async with self._settled:
            self._settled.notify_all()

    def count(self, cost_usd: float) -> None:
        """What an earlier run has spent."""
        self._spent += cost_usd
