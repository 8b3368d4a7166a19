"""Pools of worker processes with real DSPy: how many, how large, and with which environment."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

GENERAL = "general"
POOL_NAME = r"^[a-z][a-z0-9_-]{0,31}$"
PoolName = Annotated[str, Field(pattern=POOL_NAME)]
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
USER = r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$"


class PoolSettings(BaseModel):
    """One pool of a node.

    `concurrency` executions run in each worker at a time, `queue` more may wait, each for `queue_timeout_s`. A worker
    whose memory passes `memory_mb` is ended. It is replaced, without dropping a request, after `recycle_requests`,
    after `recycle_s`, or once it holds `recycle_mb`. `environment` is added to the little that a worker gets of the
    node's, `pass_environment` names variables of the node's that it gets as well. With `gpu` its devices are not
    hidden from it. Requests of one session go to one worker where they can (`hint`) or always (`strict`). Its workers
    run as the system's `user`, by default as the node's; only root may choose.
    """

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    workers: Annotated[int, Field(ge=1, le=64)] = 2
    concurrency: Annotated[int, Field(ge=1, le=256)] = 32
    memory_mb: Annotated[int, Field(ge=128)] = 1024
    environment: dict[Annotated[str, Field(pattern=VARIABLE)], str] = Field(default_factory=dict)
    pass_environment: tuple[Annotated[str, Field(pattern=VARIABLE)], ...] = ()
    recycle_requests: Annotated[int, Field(ge=1)] = 10_000
    recycle_s: Annotated[float, Field(gt=0)] = 6 * 3600.0
    recycle_mb: Annotated[int, Field(ge=64)] | None = None
    queue: Annotated[int, Field(ge=0, le=100_000)] = 1000
    queue_timeout_s: Annotated[float, Field(gt=0, le=600)] = 5.0
    gpu: bool = False
    affinity: Literal["none", "hint", "strict"] = "none"
    user: Annotated[str, Field(pattern=USER)] | None = None

    @property
    def recycled_mb(self) -> int:
        """Megabytes at which a worker is replaced when it is convenient."""
        return self.recycle_mb or self.memory_mb * 4 // 5
