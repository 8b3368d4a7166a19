"""Pools that load gRPC when a program first needs them: most nodes never do."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex.configuration.pools import GENERAL, PoolSettings
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import Score
from dspex.evaluations.ports import MetricTask
from dspex.executions.native.answers import Answer
from dspex.executions.ports import PoolHost, PoolTask, PoolView
from dspex.kit.clock import Clock
from dspex.kit.errors import Missing, Unavailable
from dspex.programs.ports import Compiled, Refused
from dspex.programs.records import Definition

if TYPE_CHECKING:
    from dspex.providers.pool.pools import WorkerPools


class LazyPools:
    """`executions.ports.Pools` and `programs.ports.Inspector`. Each of `share` processes has its share of workers."""

    def __init__(
        self, settings: Mapping[str, PoolSettings], roots: Sequence[Path], clock: Clock, *, share: int
    ) -> None:
        self._settings = {
            name: one.model_copy(update={"workers": math.ceil(one.workers / share)})
            for name, one in {GENERAL: PoolSettings(), **settings}.items()
        }
        self._roots = roots
        self._clock = clock
        self._opened: WorkerPools | None = None

    def view(self) -> Sequence[PoolView]:
        if self._opened is not None:
            return self._opened.view()
        return [PoolView(name, False, (), one.workers, 0, 0) for name, one in self._settings.items()]

    async def check(self) -> None:
        """Raises Unavailable while a pool that programs need has no worker that serves."""
        for pool in self.view():
            if pool.up and not any(one.state in ("ready", "busy") for one in pool.workers):
                raise Unavailable(
                    f"The pool {pool.name!r} has no worker that serves; the log says why they don't start.",
                    code="pool_unavailable",
                    retry_after=1,
                )

    async def recycle(self, name: str) -> int:
        if name not in self._settings:
            raise Missing(
                f"There is no pool {name!r}; there are {', '.join(sorted(self._settings))}.",
                code="pool_missing",
            )
        return 0 if self._opened is None else self._opened.recycle(name)

    async def run(self, task: PoolTask, host: PoolHost) -> Answer:
        with task.waits():
            opened = self._open()
        return await opened.run(task, host)

    async def inspect(self, definitions: Sequence[Definition]) -> list[Compiled | Refused]:
        return await self._open().inspect(definitions)

    async def signatures(self, references: Sequence[str]) -> list[Mapping[str, Any] | Refused]:
        return await self._open().signatures(references)

    async def score(self, task: MetricTask, host: PoolHost) -> Sequence[Score | MetricFailed]:
        """See `evaluations.ports.MetricPools`."""
        return await self._open().score(task, host)

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()

    def _open(self) -> "WorkerPools":
        if self._opened is None:
            try:
                from dspex.providers.pool.pools import WorkerPools
            except ImportError as missing:
                raise Unavailable(
                    "This program runs with real DSPy, and what that needs is not installed here "
                    f"({missing.name}). Install it with `pip install 'dspex[dspy]'`.",
                    code="no_pool",
                ) from None
            self._opened = WorkerPools(self._settings, self._roots, self._clock)
        return self._opened
