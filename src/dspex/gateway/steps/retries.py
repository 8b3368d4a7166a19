"""Failures that may pass are tried again, after a wait and within bounds."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from dspex.gateway.backoff import RetryBudget, wait_s
from dspex.gateway.errors import BreakerOpen, LaneFull, LMError, LMRateLimitError, LMTimeoutError
from dspex.gateway.pipeline import Passage, Proceed, Q, R
from dspex.gateway.records import Lane
from dspex.kit.clock import Clock

EMPTY = RetryBudget()


class Retries:
    """Keeps a retry budget for each model and lane, so that tuning can't use up what production may repeat."""

    def __init__(
        self,
        clock: Clock,
        draw: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._draw = draw
        self._sleep = sleep
        self._budgets: dict[tuple[str, Lane], RetryBudget] = {}

    async def __call__(self, passage: Passage[Q, R], *, proceed: Proceed[Q, R]) -> R:
        """Raises the last error that a model's server gave, with the longest wait anybody asked for."""
        budget = (passage.request.model, passage.context.lane)
        self._budgets[budget] = self._budgets.get(budget, EMPTY).called(self._clock.monotonic())
        failed: LMError | None = None
        attempt = passage.attempt
        try:
            while True:
                try:
                    return await proceed(
                        passage if attempt == passage.attempt else replace(passage, attempt=attempt)
                    )
                except LMError as error:
                    if failed is None or _reached_the_model(error):
                        failed = error
                    elif error.retry_after is not None:
                        failed.retry_after = max(failed.retry_after or 0.0, error.retry_after)
                    wait = self._wait_s(passage, error, attempt - passage.attempt + 1)
                    if wait is None or _has_another(passage, error) or not self._may_repeat(budget):
                        raise failed from None
                attempt += 1
                await self._sleep(wait)
        finally:
            # Its traceback refers to this frame: all that the request was would stay for the garbage collector.
            del failed

    def _wait_s(self, passage: Passage[Q, R], error: LMError, failed: int) -> float | None:
        context = passage.context
        left_s = None if context.deadline is None else context.deadline - self._clock.monotonic()
        draw = self._draw()
        if context.snoozes and isinstance(error, LMRateLimitError):
            return None
        return wait_s(error, failed, passage.settings.retries, context.lane, left_s=left_s, draw=draw)

    def _may_repeat(self, budget: tuple[str, Lane]) -> bool:
        spent = self._budgets[budget].retried(self._clock.monotonic())
        if spent is None:
            return False
        self._budgets[budget] = spent
        return True


def _has_another(passage: Passage[Q, R], error: LMError) -> bool:
    """A model that hangs takes all the time there is: its fallback is asked instead."""
    return isinstance(error, LMTimeoutError) and bool(passage.settings.fallbacks) and not passage.fallback_for


def _reached_the_model(error: LMError) -> bool:
    """Whether this error says more than that there was no time or no room for another attempt."""
    return error.trips if isinstance(error, LMTimeoutError) else not isinstance(error, BreakerOpen | LaneFull)
