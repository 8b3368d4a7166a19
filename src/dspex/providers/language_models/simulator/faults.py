"""When the simulator is slow or breaks, and how. With one seed the n-th call meets the same trouble."""

import math
import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dspex.kit.errors import Invalid
from dspex.providers.language_models.simulator.draws import Draws, digest

FaultKind = Literal[
    "rate_limit",
    "server_error",
    "hang",
    "reset",
    "empty",
    "truncated_body",
    "garbage_body",
    "malformed_json",
    "missing_marker",
]


# What of a streamed answer comes before the fault: nothing of it, or half.
NOTHING_SENT = frozenset[FaultKind]({"rate_limit", "server_error", "hang", "garbage_body"})
BROKEN_OFF = frozenset[FaultKind]({"reset", "truncated_body", "malformed_json"})


class Fault(BaseModel):
    """`retry_after` goes with rate_limit and server_error, `seconds` with hang; both in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: FaultKind
    retry_after: Annotated[float, Field(ge=0, le=86_400)] | None = None
    seconds: Annotated[float, Field(ge=0, le=86_400)] = 3600.0


class FaultRule(Fault):
    """A fault and when it strikes; exactly one of the three schedules.

    `rate` at random, `calls` at the listed calls (from 0), `every` at each so-many-th call.
    """

    rate: Annotated[float, Field(ge=0, le=1)] | None = None
    calls: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    every: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_schedule(self) -> "FaultRule":
        if sum(value is not None for value in (self.rate, self.calls, self.every)) != 1:
            raise ValueError("say when the fault strikes by exactly one of rate, calls, every")
        return self

    def strikes(self, call: int, chance: float) -> bool:
        """`call` counts from 0; `chance` is this call's draw in [0, 1)."""
        if self.rate is not None:
            return chance < self.rate
        if self.calls is not None:
            return call in self.calls
        return self.every is not None and (call + 1) % self.every == 0


def find_fault(rules: Sequence[FaultRule], seed: int, call: int) -> Fault | None:
    """The first rule that strikes at this call, if any."""
    if not rules:
        return None
    draws = Draws(digest("fault", seed, call))
    return next((rule for rule in rules if rule.strikes(call, draws.unit())), None)


class Latency(BaseModel):
    """How long a reply takes, in seconds.

    fixed: `low`. uniform: between `low` and `high`. lognormal: median `low`, `sigma` the standard
    deviation of the logarithm; cut at `high`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: Literal["fixed", "uniform", "lognormal"] = "fixed"
    low: Annotated[float, Field(ge=0, le=3600)] = 0.0
    high: Annotated[float, Field(ge=0, le=3600)] = 3600.0
    sigma: Annotated[float, Field(ge=0, le=5)] = 0.5

    def seconds(self, seed: int, call: int) -> float:
        """The delay of this call (counted from 0)."""
        if self.shape == "fixed":
            return self.low
        draws = Draws(digest("latency", seed, call))
        if self.shape == "uniform":
            return self.low + draws.unit() * (self.high - self.low)
        # Box-Muller: two uniform draws give one from the normal distribution.
        normal = math.sqrt(-2 * math.log(1 - draws.unit())) * math.cos(2 * math.pi * draws.unit())
        return min(self.low * math.exp(self.sigma * normal), self.high)


_SECONDS = r"(\d+(?:\.\d+)?)(ms|s)?"
_LATENCY = re.compile(
    rf"(?:(?P<fixed>{_SECONDS})|uniform:(?P<low>{_SECONDS})-(?P<high>{_SECONDS})"
    rf"|lognormal:(?P<median>{_SECONDS})(?:,(?P<sigma>\d+(?:\.\d+)?))?)"
)


def parse_latency(text: str) -> Latency:
    """Read "500ms", "0.5s", "uniform:100ms-300ms" or "lognormal:200ms,0.5"; a bare number is seconds.

    Raises Invalid for anything else, for more than an hour, and for an interval that ends before it starts.
    """
    try:
        return _latency(text)
    except ValidationError as error:
        raise Invalid(
            f"the latency {text!r} is not between 0 s and 3600 s, or its spread not between 0 and 5",
            code="latency_unreadable",
        ) from error


def _latency(text: str) -> Latency:
    found = _LATENCY.fullmatch(text.strip())
    if found is None:
        raise Invalid(
            f"{text!r} is no latency: write 500ms, uniform:100ms-300ms or lognormal:200ms,0.5",
            code="latency_unreadable",
        )
    if found["fixed"]:
        return Latency(low=_seconds(found["fixed"]))
    if found["median"]:
        return Latency(shape="lognormal", low=_seconds(found["median"]), sigma=float(found["sigma"] or 0.5))
    low, high = _seconds(found["low"]), _seconds(found["high"])
    if high < low:
        raise Invalid(f"the latency {text!r} ends before it starts", code="latency_unreadable")
    return Latency(shape="uniform", low=low, high=high)


def _seconds(text: str) -> float:
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text.removesuffix("s"))
