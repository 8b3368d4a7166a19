"""Whether anybody does the jobs that wait."""

from datetime import timedelta

from dspex.application.maintenance import DEAD_AFTER
from dspex.executions.ports import Nodes
from dspex.jobs.ports import JobStore
from dspex.kit.clock import Clock
from dspex.kit.errors import Unavailable

# The names of nodes that run jobs begin so.
WORKER = "work-"
# A worker that was asked for takes some seconds to start.
PATIENCE = timedelta(seconds=30)


class JobsCheck:
    def __init__(self, jobs: JobStore, nodes: Nodes, clock: Clock) -> None:
        self._jobs = jobs
        self._nodes = nodes
        self._clock = clock

    async def probe(self) -> None:
        """Raises Unavailable (code no_worker) while jobs wait and no worker shows itself."""
        now = self._clock.now()
        if not await self._jobs.overdue(since=now - PATIENCE):
            return
        alive = await self._nodes.alive(beat_after=now - DEAD_AFTER)
        if not any(node.startswith(WORKER) for node in alive):
            raise Unavailable(
                "Jobs wait and no worker runs; see this node's log for why, or start `dspex work`.",
                code="no_worker",
            )
