"""What a serving node does beside answering: it shows that it lives, and tidies up after those that do not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog

from dspex.configuration.settings import Retention
from dspex.executions.ports import ExecutionStore, Nodes
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Unavailable

log = structlog.get_logger(__name__)
BEAT_S = 5.0
DEAD_AFTER = timedelta(seconds=20)
PRUNE_S = 3600.0
CLAIM_KEPT = timedelta(days=1)
NODE_KEPT = timedelta(days=1)


class Maintenance:
    def __init__(
        self, executions: ExecutionStore, nodes: Nodes, retention: Retention, clock: Clock, node: str
    ) -> None:
        self._executions = executions
        self._nodes = nodes
        self._retention = retention
        self._clock = clock
        self._node = node
        self._failure: DspexError | None = None

    async def check(self) -> None:
        """Raises what kept the last heartbeat from being written: a node that can only read is not ready."""
        if self._failure is not None:
            raise self._failure

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Beats and prunes until it is left; then the node says goodbye, so that nobody waits for it."""
        # Apart, because pruning may take minutes and a node that does not beat is taken for dead.
        tasks = [
            asyncio.create_task(self._for_ever(self._watched_beat, BEAT_S)),
            asyncio.create_task(self._for_ever(self.prune, PRUNE_S)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await self._nodes.leave(self._node)
            except DspexError as error:
                log.warning("node_could_not_leave", reason=error.message)

    async def _for_ever(self, work: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            try:
                await work()
            except DspexError as error:
                # The database is away: requests say so themselves, and the next round tries again.
                log.warning("maintenance_failed", reason=error.message)
            except Exception:
                # A defect of ours must not silence the node, or others take it for dead.
                log.exception("maintenance_failed")
            await asyncio.sleep(every_s)

    async def _watched_beat(self) -> None:
        try:
            await self.beat()
        except DspexError as error:
            self._failure = error
            raise
        except Exception:
            self._failure = Unavailable("The heartbeat fails; the log says why.", code="database_unavailable")
            raise
        self._failure = None

    async def beat(self) -> None:
        """Shows that this node lives, and fails the executions of those that do not."""
        now = self._clock.now()
        await self._nodes.beat(self._node, now)
        failed = await self._executions.fail_orphans(
            beat_before=now - DEAD_AFTER, at=now, reason="The node that ran this execution died."
        )
        if failed:
            log.warning("orphans_failed", executions=failed)

    async def prune(self) -> None:
        """Deletes claims and nodes of a day ago, and executions beyond the retention."""
        now = self._clock.now()
        if claims := await self._executions.prune_claims(older_than=now - CLAIM_KEPT):
            log.info("claims_pruned", claims=claims)
        if nodes := await self._nodes.forget(beat_before=now - NODE_KEPT):
            log.info("nodes_forgotten", nodes=nodes)
        if self._retention.days is None and self._retention.rows is None:
            return
        age = None if self._retention.days is None else timedelta(days=self._retention.days)
        older_than = None if age is None else now - age
        pruned = await self._executions.prune(None, older_than=older_than, keep_newest=self._retention.rows)
        if pruned:
            log.info("executions_pruned", executions=pruned)
