"""What goes with a change of an optimization's job: a retry by hand goes on from the journal, with all its time."""

from collections.abc import Sequence

from msgspec.structs import replace

from dspex.jobs.records import Job
from dspex.optimizations.errors import journal_deleted
from dspex.optimizations.ports import Journal, OptimizationStore

# What failed so may go well later: a model that was down, or slow, or whose limit was reached.
PASSING = frozenset({"unavailable", "timeout", "exhausted"})


class OptimizationChanges:
    """`jobs.ports.Changes` of optimizations."""

    def __init__(self, store: OptimizationStore, journal: Journal) -> None:
        self._store = store
        self._journal = journal

    async def change(self, before: Job, after: Job, followers: Sequence[Job] = ()) -> bool:
        """Raises Conflict (code journal_deleted) for a retry that would pay for everything again."""
        if before.completed_at is not None and after.completed_at is None:
            await self._made_ready(before)
        return await self._store.change(before, after, followers)

    async def _made_ready(self, job: Job) -> None:
        """Done before the retry, for which it does no harm when that comes to nothing."""
        place = (job.project, job.id)
        optimization = await self._store.get(*place)
        if optimization is None:
            return
        standing = optimization.standing
        counters = standing.counters
        # One whose calls all failed has an empty journal, and its events.
        emptied = counters.lm_calls > 0 and not (await self._journal.totals(*place)).calls
        if emptied and not await self._store.last_event(*place):
            raise journal_deleted(job.id)
        await self._journal.forget_failures(*place, PASSING)
        if counters.running_s:
            await self._store.note(job, replace(standing, counters=replace(counters, running_s=0.0)))
