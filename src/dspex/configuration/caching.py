"""What is kept of answers, for how long, and who may read it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

CacheMode = Literal["on", "off", "read_only", "write_only"]
# YAML reads a bare on or off as true or false.
_WORDS = {True: "on", False: "off"}
Seconds = Annotated[float, Field(ge=0, le=366 * 86400)]


def _word(value: object) -> object:
    return _WORDS[value] if isinstance(value, bool) else value


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How one program, or one request, uses the caches.

    `max_age_s` is the oldest answer that will do (None: any that is kept); `stale_if_error_s` how much older it
    may be while the model can't be reached.
    """

    __pydantic_config__ = ConfigDict(defer_build=True, extra="forbid")

    mode: Annotated[CacheMode, BeforeValidator(_word)] = "on"
    max_age_s: Seconds | None = None
    stale_if_error_s: Seconds = 0.0

    @property
    def reads(self) -> bool:
        return self.mode in ("on", "read_only")

    @property
    def writes(self) -> bool:
        return self.mode in ("on", "write_only")


class CacheBounds(BaseModel):
    """What is kept in memory. An entry larger than `entry_bytes` is not kept at all.

    `entry_bytes` and `ttl_s` hold for Redis as well.
    """

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    entries: Annotated[int, Field(ge=1, le=100_000_000)] = 10_000
    memory_bytes: Annotated[int, Field(ge=1024)] = 1024**3
    entry_bytes: Annotated[int, Field(ge=1024, le=512 * 1024**2)] = 1024**2
    ttl_s: Annotated[float, Field(gt=0, le=366 * 86400)] = 86_400.0


class EmbeddingCacheBounds(CacheBounds):
    """Of the cache for embeddings: 1536 numbers take 6.5 KB."""

    entries: Annotated[int, Field(ge=1, le=100_000_000)] = 50_000
    memory_bytes: Annotated[int, Field(ge=1024)] = 512 * 1024**2
    ttl_s: Annotated[float, Field(gt=0, le=366 * 86400)] = 7 * 86_400.0


class CacheSettings(CacheBounds):
    """The bounds of the caches in memory, and the policy of programs that have none.

    There are two besides that of embeddings, one for replies of models and one for whole predictions: `entries` holds
    for each of them, `memory_bytes` for both together.
    """

    policy: CachePolicy = CachePolicy()
    embeddings: EmbeddingCacheBounds = EmbeddingCacheBounds()
