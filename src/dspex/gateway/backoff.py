"""Whether a failed call is worth another try, and after what wait."""

import math

from msgspec import Struct

from dspex.configuration.resilience import RetrySettings
from dspex.gateway.errors import LaneFull, LMError, LMRateLimitError
from dspex.gateway.records import Lane

# A provider that is down must not get three times the traffic: retries are so much of the calls of late ...
SHARE = 0.2
# ... and so many more, or a service with few calls could never repeat one.
RESERVE = 10.0
HALF_LIFE_S = 10.0

BACKGROUND_ATTEMPTS = 5
SNOOZE_S = 60.0


class RetryBudget(Struct, frozen=True):
    """Calls and retries, which count half after each HALF_LIFE_S; `at` is on the monotonic clock."""

    calls: float = 0.0
    retries: float = 0.0
    at: float = 0.0

    def called(self, now: float) -> "RetryBudget":
        faded = self._fading(now)
        return RetryBudget(self.calls * faded + 1, self.retries * faded, now)

    def retried(self, now: float) -> "RetryBudget | None":
        """None when there have been enough retries."""
        faded = self._fading(now)
        calls, retries = self.calls * faded, self.retries * faded + 1
        return RetryBudget(calls, retries, now) if retries <= SHARE * calls + RESERVE else None

    def _fading(self, now: float) -> float:
        return math.exp2((self.at - max(now, self.at)) / HALF_LIFE_S)


def wait_s(
    error: LMError,
    failed: int,
    settings: RetrySettings,
    lane: Lane,
    *,
    left_s: float | None,
    draw: float,
) -> float | None:
    """Seconds to wait before the next attempt, or None to give up.

    `failed` attempts were made. Interactive calls wait `draw` (0 to 1) of base_s x 2^n ("full jitter", Brooker,
    Exponential Backoff and Jitter, 2015), background ones 2^n s; both at least what the provider asks for.
    `left_s` is the time until the call's deadline: what would only begin after it is not worth waiting for.
    """
    wait = (
        _interactive(error, failed, settings, draw) if lane == "interactive" else _background(error, failed)
    )
    return None if wait is None or (left_s is not None and wait >= left_s) else wait


def _interactive(error: LMError, failed: int, settings: RetrySettings, draw: float) -> float | None:
    if not error.retryable or failed >= settings.attempts:
        return None
    if error.retry_after is None:
        return draw * min(settings.base_s * 2.0 ** (failed - 1), settings.max_s)
    if error.retry_after > settings.max_s:
        return None
    # Everybody was told the same time: those who wait should not all come back in the same instant.
    return error.retry_after + draw * settings.base_s


def _background(error: LMError, failed: int) -> float | None:
    if not (error.retryable or isinstance(error, LaneFull)) or failed >= BACKGROUND_ATTEMPTS:
        return None
    if isinstance(error, LMRateLimitError):
        return SNOOZE_S if error.retry_after is None else min(error.retry_after, SNOOZE_S)
    return max(2.0**failed, error.retry_after or 0.0)
