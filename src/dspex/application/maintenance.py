"""What a serving node does beside answering: it shows that it lives, and tidies up after those that do not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog

from dspex.configuration.settings import Retention
from dspex.executions.ports import ExecutionStore, Nodes
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError

log = structlog.get_logger(__name__)
BEAT_S = 5.0
DEAD_AFTER = timedelta(seconds=20)
CLAIM_KEPT = timedelta(days=1)
NODE_KEPT = timedelta(days=1)
PRUNE_EVERY_BEATS = 720


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
        """Beats until it is left; then the node says goodbye, so that nobody waits for it."""
        task = asyncio.create_task(self._beat_for_ever())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            try:
                await self._nodes.leave(self._node)
            except DspexError as error:
                log.warning("node_could_not_leave", reason=error.message)

    async def _beat_for_ever(self) -> None:
        beats = 0
        while True:
            try:
                await self.beat(prune=beats % PRUNE_EVERY_BEATS == 0)
                self._failure = None
            except DspexError as error:
                self._failure = error
                # The database is away: requests say so themselves, and the next beat tries again.
                log.warning("maintenance_failed", reason=error.message)
            beats += 1
            await asyncio.sleep(BEAT_S)

    async def beat(self, *, prune: bool) -> None:
        """One round: heartbeat, orphans of dead nodes, and when asked for retention, old claims and nodes."""
        now = self._clock.now()
        await self._nodes.beat(self._node, now)
        failed = await self._executions.fail_orphans(
            beat_before=now - DEAD_AFTER, at=now, reason="The node that ran this execution died."
        )
        if failed:
            log.warning("orphans_failed", executions=failed)
        if prune:
            await self._prune(now)

    async def _prune(self, now: datetime) -> None:
        if claims := await self._executions.prune_claims(older_than=now - CLAIM_KEPT):
            log.info("claims_pruned", claims=claims)
        if nodes := await self._nodes.forget(beat_before=now - NODE_KEPT):
            log.info("nodes_forgotten", nodes=nodes)
        if self._retention.days is not None or self._retention.rows is not None:
            older_than = None if self._retention.days is None else now - timedelta(days=self._retention.days)
            pruned = await self._executions.prune(
                None, older_than=older_than, keep_newest=self._retention.rows
            )
            log.info("executions_pruned", executions=pruned)
