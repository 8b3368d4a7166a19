"""A circuit breaker: its states and what moves it, without clock and without I/O.

closed     calls pass; so many failures in a row open it
open       nothing passes before `until` (None, an operator opened it: not by itself)
half-open  one trial at a time; so many successes in a row close it, one failure opens it for the full time
"""

from datetime import datetime
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from dspex.configuration.resilience import BreakerSettings

State = Literal["closed", "open", "half_open"]
Action = Literal["open", "close", "reset"]
# While a trial is under way the next one may be due at any moment.
TRIAL_RETRY_S = 1.0


class Breaker(Struct, frozen=True):
    """`failures` in a row while closed, `successes` in a row while half-open.

    `until` is on the monotonic clock: of an open one when trials begin, of a half-open one when the trial under way
    is given up for lost (None: there is none); `trial` is that trial's name, unlike any other's on any node. `number`
    tells one period from the next. `last_error` is the code of the last failure.
    """

    state: State = "closed"
    failures: int = 0
    successes: int = 0
    until: float | None = None
    trial: str | None = None
    number: int = 0
    since: datetime | None = None
    last_error: str | None = None


class Permit(Struct, frozen=True):
    """Leave to call, whose outcome is told to the breaker that gave it."""

    number: int
    trial: str | None = None


CLOSED = Breaker()


def admit(
    breaker: Breaker, *, now: float, at: datetime, trial: str, trial_s: float
) -> tuple[Breaker, Permit | None]:
    """The permit of a call, or None. A trial gets the name `trial`, and is given up for lost after `trial_s`."""
    if breaker.state == "closed":
        return breaker, Permit(breaker.number)
    if retry_after(breaker, now) != 0:
        return breaker, None
    number = breaker.number + 1
    since = at if breaker.state == "open" else breaker.since
    tried = replace(breaker, state="half_open", until=now + trial_s, trial=trial, number=number, since=since)
    return tried, Permit(number, trial)


def succeeded(breaker: Breaker, permit: Permit, settings: BreakerSettings, at: datetime) -> Breaker:
    if not _counts(breaker, permit):
        return breaker
    if permit.trial is None:
        return replace(breaker, failures=0) if breaker.failures else breaker
    if breaker.successes + 1 < settings.successes:
        return replace(breaker, successes=breaker.successes + 1, until=None, trial=None)
    return Breaker(number=breaker.number + 1, since=at)


def failed(
    breaker: Breaker, permit: Permit, settings: BreakerSettings, error: str, *, now: float, at: datetime
) -> Breaker:
    """`error` is the failure's code."""
    if not _counts(breaker, permit):
        return breaker
    failures = breaker.failures + 1
    if permit.trial is None and failures < settings.failures:
        return replace(breaker, failures=failures, last_error=error)
    return Breaker(
        "open",
        failures,
        until=now + settings.open_s,
        number=breaker.number + 1,
        since=at,
        last_error=error,
    )


def given_up(breaker: Breaker, permit: Permit) -> Breaker:
    """The call came to no verdict on the model: a trial makes room for the next."""
    if permit.trial is None or not _counts(breaker, permit):
        return breaker
    return replace(breaker, until=None, trial=None)


def operated(breaker: Breaker, action: Action, at: datetime) -> Breaker:
    """`open` holds until another action; `close` closes; `reset` forgets the last error as well."""
    match action:
        case "open" if breaker.state != "open" or breaker.until is not None:
            number, last_error = breaker.number + 1, breaker.last_error
            return Breaker("open", breaker.failures, number=number, since=at, last_error=last_error)
        case "close" if breaker.state != "closed" or breaker.failures:
            return Breaker(number=breaker.number + 1, since=at, last_error=breaker.last_error)
        case "reset" if breaker.state != "closed" or breaker.failures or breaker.last_error:
            return Breaker(number=breaker.number + 1, since=at)
    return breaker


def state_at(breaker: Breaker, now: float) -> State:
    """What a caller would meet: an open one whose time is over waits for a trial."""
    return "half_open" if breaker.state == "open" and retry_after(breaker, now) == 0 else breaker.state


def retry_after(breaker: Breaker, now: float) -> float | None:
    """Seconds until a call may pass: 0 for at once, None when nobody knows."""
    if breaker.state == "closed":
        return 0.0
    if breaker.until is None:
        return None if breaker.state == "open" else 0.0
    left_s = max(breaker.until - now, 0.0)
    return min(left_s, TRIAL_RETRY_S) if breaker.state == "half_open" else left_s


def _counts(breaker: Breaker, permit: Permit) -> bool:
    """Whether the outcome is of this period; what ends after the breaker has moved on says nothing of now."""
    if permit.trial is not None:
        return breaker.trial == permit.trial
    return breaker.state == "closed" and breaker.number == permit.number
