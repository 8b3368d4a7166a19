"""Alerts: what is wrong with which program, since when."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Rule = Literal["slow_execution", "slow_pool_call", "error_rate"]


@dataclass(frozen=True, slots=True)
class Alert:
    """`value` is what was seen and `threshold` what it passed: seconds, or a share from 0 to 1.

    `value` of an alert that lasts is the newest. There is one at a time for each rule, project and program.
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
