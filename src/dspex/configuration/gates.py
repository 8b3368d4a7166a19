"""What a version has to show before it answers."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field


@dataclass(frozen=True, slots=True)
class Gates:
    """The least score on examples that were held out, and the most that a prediction may cost in US dollars."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    max_cost_usd_per_call: Annotated[float, Field(gt=0, le=10**6)] | None = None
