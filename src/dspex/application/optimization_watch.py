"""What a serving node knows of optimizations, which run elsewhere: asked of the database now and then."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from dspex.jobs.ports import JobStore
from dspex.kit.clock import Clock
from dspex.kit.errors import Missing
from dspex.observability.ports import Key
from dspex.observability.records import LongOptimization

if TYPE_CHECKING:
    from dspex.observability.optimization_figures import OptimizationFigures
    from dspex.optimizations.ports import OptimizationReader
    from dspex.programs.service import ProgramService

EVERY_S = 5.0
PAGE = 200
KIND = "optimization"
# An end is written after its time was taken, and clocks of nodes differ: so long after it is still looked for.
LATE = timedelta(hours=1)
Counted = Callable[[], Mapping[tuple[str, str], int]]


class OptimizationWatch:
    """`counted` are the jobs on record: without an optimization among them nothing is asked or loaded."""

    def __init__(
        self,
        counted: Counted,
        jobs: JobStore,
        optimizations: "OptimizationReader",
        programs: "ProgramService",
        clock: Clock,
    ) -> None:
        self._counted = counted
        self._jobs = jobs
        self._optimizations = optimizations
        self._programs = programs
        self._clock = clock
        self._figures: OptimizationFigures | None = None
        self._from: tuple[datetime, str] | None = None
        self._known: set[tuple[str, datetime]] = set()

    def figures(self) -> "OptimizationFigures | None":
        """Of all that ended, as of some seconds ago; None before any is known."""
        return self._figures

    async def look(self) -> None:
        """Raises Unavailable."""
        if not any(count for (kind, _), count in self._counted().items() if kind == KIND):
            return
        await self._count()

    async def running(self, *, surely: bool) -> dict[Key, LongOptimization]:
        """See OptimizationsRunning."""
        found: dict[Key, LongOptimization] = {}
        if not (surely or self._counted().get((KIND, "running"))):
            return found
        now = self._clock.now()
        for job in await self._jobs.running():
            if job.kind == KIND and job.subject is not None and job.started_at is not None:
                seconds = (now - job.started_at).total_seconds()
                key = (job.project, job.subject)
                if key not in found or found[key].seconds < seconds:
                    found[key] = LongOptimization(seconds, await self._own(*key))
        return found

    async def _count(self) -> None:
        """All that is on record counts before anything is shown: a counter that grows after a start would mislead."""
        from dspex.observability.optimization_figures import OptimizationFigures

        figures = self._figures or OptimizationFigures()
        after = self._from
        while True:
            page = await self._optimizations.ended(after=after, limit=PAGE)
            figures.add(one for one in page if (one.id, one.completed_at) not in self._known)
            self._known |= {(one.id, one.completed_at) for one in page}
            if page:
                after = (page[-1].completed_at, page[-1].id)
            if len(page) < PAGE:
                break
        self._figures = figures
        if after is not None:
            since = after[0] - LATE
            self._from = (since, "")
            self._known = {one for one in self._known if one[1] >= since}

    async def _own(self, project: str, program: str) -> float | None:
        try:
            alerts = (await self._programs.get(project, program)).settings.alerts
        except Missing:
            return None
        return None if alerts is None else alerts.long_optimization_s
