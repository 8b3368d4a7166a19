"""Alerts: what is wrong with which program, since when."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from dspex.configuration.alerting import AlertThresholds

Rule = Literal["slow_execution", "slow_pool_call", "error_rate", "long_optimization"]


class Part(Struct, frozen=True):
    """What ended of one program within a stretch of time that began then; `failed` for reasons that count.

    `slowest_pool_s` is time in a pool without the models. `thresholds` are the program's own, as of its last execution.
    """

    project: str
    program: str
    began: datetime
    ended: int
    failed: int
    slowest_s: float
    slowest_pool_s: float
    thresholds: AlertThresholds | None = None


class LongOptimization(Struct, frozen=True):
    """How long a program's optimization runs by now, and the program's own limit."""

    seconds: float
    own_s: float | None = None


class Finding(Struct, frozen=True):
    """A rule that is broken: by which value, which passed which threshold."""

    rule: Rule
    value: float
    threshold: float


class Alert(Struct, frozen=True):
    """`value` is what was seen and `threshold` what it passed: seconds, or a share from 0 to 1.

    `value` of an alert that lasts is the newest. There is one at a time for each rule, project and program. `node` is
    the process that told of it first.
    """

    id: str
    rule: Rule
    project: str
    program: str
    node: str
    value: float
    threshold: float
    message: str
    raised_at: datetime
    resolved_at: datetime | None = None


class Lasting(Struct, frozen=True):
    """An alert that is not over, and when somebody was told of it last."""

    alert: Alert
    told_at: datetime
