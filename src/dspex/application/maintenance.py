"""What a serving node does beside answering: it shows that it lives, and tidies up after those that do not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from msgspec import Struct

from dspex.access.ports import AuditStore
from dspex.configuration.settings import Retention
from dspex.executions.ports import ExecutionStore, Nodes
from dspex.gateway.ports import BudgetLedger
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Unavailable
from dspex.kit.finishing import finished
from dspex.kit.ids import id_at
from dspex.kit.signals import Signals

if TYPE_CHECKING:
    from dspex.datasets.ports import DatasetStore
    from dspex.executions.feedback.ports import FeedbackStore

log = structlog.get_logger(__name__)
BEAT_S = 5.0
DEAD_AFTER = timedelta(seconds=20)
PRUNE_S = 3600.0
# The first round waits until a node has started: deleting loads SQLAlchemy.
FIRST_PRUNE_S = 60.0
CLAIM_KEPT = timedelta(days=1)
NODE_KEPT = timedelta(days=1)
HOLDING_KEPT = timedelta(minutes=10)
BUDGET_KEPT = timedelta(days=400)
UPLOAD_KEPT = timedelta(days=1)
SIGNAL_KEPT = timedelta(hours=1)


class Chore(Struct, frozen=True):
    """Something done again and again, and once more at the end. Raises DspexError when it has to wait."""

    work: Callable[[], Coroutine[Any, Any, None]]
    every_s: float


class Maintenance:
    def __init__(
        self,
        executions: ExecutionStore,
        nodes: Nodes,
        budgets: BudgetLedger,
        signals: Signals,
        retention: Retention,
        clock: Clock,
        node: str,
        *,
        audit: AuditStore,
        datasets: "DatasetStore",
        feedback: "FeedbackStore",
        chores: Sequence[Chore] = (),
    ) -> None:
        self._executions = executions
        self._nodes = nodes
        self._budgets = budgets
        self._signals = signals
        self._retention = retention
        self._clock = clock
        self._node = node
        self._audit = audit
        self._datasets = datasets
        self._feedback = feedback
        self._chores = chores
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
            asyncio.create_task(self._for_ever(self.prune, PRUNE_S, first_s=FIRST_PRUNE_S)),
            *(asyncio.create_task(self._tend(chore)) for chore in self._chores),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                for chore in self._chores:
                    await chore.work()
                await self._nodes.leave(self._node)
            except DspexError as error:
                log.warning("node_could_not_leave", reason=error.message)

    async def _tend(self, chore: Chore) -> None:
        # What it has taken out to write would be lost half way.
        await self._for_ever(lambda: finished(chore.work()), chore.every_s)

    async def _for_ever(
        self, work: Callable[[], Awaitable[None]], every_s: float, first_s: float = 0.0
    ) -> None:
        await asyncio.sleep(first_s)
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
        """Shows that this node lives, fails the executions of those that do not, and closes what they held."""
        now = self._clock.now()
        await self._nodes.beat(self._node, now)
        failed = await self._executions.fail_orphans(
            beat_before=now - DEAD_AFTER, at=now, reason="The node that ran this execution died."
        )
        if failed:
            log.warning("orphans_failed", executions=failed)
        # Commands on the same database hold budgets as well, and have no heartbeat: they book or end before long.
        reaped = await self._budgets.reap(beat_before=now - DEAD_AFTER, booked_before=now - HOLDING_KEPT)
        if reaped:
            log.warning("budgets_reaped", holdings=reaped)

    async def prune(self) -> None:
        """Deletes claims, nodes and unfinished uploads of a day ago, signals of an hour ago, budgets of a year ago,

        what is beyond the retention, and feedback on it.
        """
        now = self._clock.now()
        if claims := await self._executions.prune_claims(older_than=now - CLAIM_KEPT):
            log.info("claims_pruned", claims=claims)
        if nodes := await self._nodes.forget(beat_before=now - NODE_KEPT):
            log.info("nodes_forgotten", nodes=nodes)
        if uploads := await self._datasets.prune(older_than_id=id_at(now - UPLOAD_KEPT)):
            log.info("dataset_uploads_pruned", uploads=uploads)
        await self._signals.prune(older_than=now - SIGNAL_KEPT)
        if accounts := await self._budgets.forget(booked_before=now - BUDGET_KEPT):
            log.info("budgets_forgotten", accounts=accounts)
        if self._retention.audit_days is not None:
            oldest = now - timedelta(days=self._retention.audit_days)
            if entries := await self._audit.prune(older_than=oldest):
                log.info("audit_pruned", entries=entries)
        if self._retention.days is not None or self._retention.rows is not None:
            await self._prune_executions(now)
        if judgements := await self._feedback.prune():
            log.info("feedback_pruned", feedback=judgements)

    async def _prune_executions(self, now: datetime) -> None:
        age = None if self._retention.days is None else timedelta(days=self._retention.days)
        older_than = None if age is None else now - age
        pruned = await self._executions.prune(None, older_than=older_than, keep_newest=self._retention.rows)
        if pruned:
            log.info("executions_pruned", executions=pruned)
