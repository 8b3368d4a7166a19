"""How much a key, a session, a program or a model may use."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=10**12)]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Model calls, and tokens of prompts and replies together, in any minute; None: no limit."""

    __pydantic_config__ = ConfigDict(defer_build=True, extra="forbid")

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """US dollars for model calls in a day or month (UTC), or in all."""

    __pydantic_config__ = ConfigDict(defer_build=True, extra="forbid")

    usd: Annotated[float, Field(gt=0, le=10**9)]
    per: Literal["day", "month", "total"] = "month"
