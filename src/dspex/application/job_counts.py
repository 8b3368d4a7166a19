"""How many jobs there are, for the metrics: asked of the database now and then."""

from collections import Counter
from collections.abc import Mapping

from dspex.jobs.ports import JobStore

EVERY_S = 5.0


class JobCounts:
    """Whoever never had a job is asked whether there is one, which needs no SQLAlchemy."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self._counted: Mapping[tuple[str, str], int] = {}

    def __call__(self) -> Mapping[tuple[str, str], int]:
        """By kind and state, as of some seconds ago."""
        return self._counted

    async def look(self) -> None:
        """Raises Unavailable."""
        if not self._counted and not await self._jobs.recorded():
            return
        counted: Counter[tuple[str, str]] = Counter()
        for one in await self._jobs.counts(None):
            counted[one.kind, one.state] += one.jobs
        self._counted = counted
