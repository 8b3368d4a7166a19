"""DSPy's optimizers, whose workers and gRPC are loaded when one is first needed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspex.configuration.settings import Settings
from dspex.kit.clock import Clock
from dspex.kit.errors import Unavailable
from dspex.programs.records import Definition

if TYPE_CHECKING:
    from dspex.optimizations.ports import OptimizerHost
    from dspex.optimizations.records import Optimized, OptimizerTask
    from dspex.providers.pool.optimizers import PoolOptimizers


class LazyOptimizers:
    """`optimizations.ports.Optimizers`."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._opened: PoolOptimizers | None = None

    async def check(
        self,
        pool: str,
        project: str,
        definition: Definition,
        optimizer: str,
        config: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        return await self._open().check(pool, project, definition, optimizer, config)

    async def optimize(self, task: "OptimizerTask", host: "OptimizerHost") -> "Optimized":
        return await self._open().optimize(task, host)

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()

    def _open(self) -> "PoolOptimizers":
        if self._opened is None:
            try:
                from dspex.providers.pool.optimizers import PoolOptimizers
            except ImportError as missing:
                raise Unavailable(
                    "Optimizers are DSPy's, and what they need is not installed here "
                    f"({missing.name}). Install it with `pip install 'dspex[dspy]'`.",
                    code="no_pool",
                ) from None
            settings = self._settings
            self._opened = PoolOptimizers(
                settings.pools, settings.code_roots, settings.models.registry, self._clock
            )
        return self._opened
