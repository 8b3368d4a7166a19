"""What keeps trouble with one model from becoming everybody's."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)


class RetrySettings(_Section):
    """`attempts` counts the first one. Waits are base_s x 2^n with full jitter, at most `max_s`.

    A `retry-after` of the provider is waited for when it is at most `max_s`, else the call fails at once.
    """

    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    base_s: Annotated[float, Field(gt=0, le=60)] = 0.5
    max_s: Annotated[float, Field(gt=0, le=300)] = 10.0


class BreakerSettings(_Section):
    """Opens after `failures` in a row, tries again after `open_s`, closes after `successes` trials in a row."""

    failures: Annotated[int, Field(ge=1, le=1000)] = 5
    open_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    successes: Annotated[int, Field(ge=1, le=1000)] = 3


class LaneSettings(_Section):
    """Calls in flight to one model from one process: by lane, and in all (None: the sum of the lanes).

    A call that finds no room waits `wait_s` at most, among at most `queue` others of its lane.
    """

    interactive: Annotated[int, Field(ge=1, le=100_000)] = 1000
    evaluation: Annotated[int, Field(ge=1, le=100_000)] = 32
    optimization: Annotated[int, Field(ge=1, le=100_000)] = 10
    total: Annotated[int, Field(ge=1, le=100_000)] | None = None
    queue: Annotated[int, Field(ge=0, le=100_000)] = 1000
    wait_s: Annotated[float, Field(ge=0, le=300)] = 5.0
