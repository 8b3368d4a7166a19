"""`dspex work`: runs jobs until it is told to stop."""

import asyncio
import importlib.util
import os
import signal
import threading
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from dspex.application.foundation import Foundation, open_foundation
from dspex.application.inheritance import inherit
from dspex.application.job_handlers import handlers
from dspex.application.jobs_check import WORKER
from dspex.application.model_keys import warn_of_missing_keys
from dspex.application.observing import hide_secrets
from dspex.application.pool_users import check_pool_users
from dspex.application.source import Source, from_text, opened
from dspex.application.wiring import services_on
from dspex.application.worker_locks import alive
from dspex.application.working_names import HANDED_DOWN
from dspex.configuration.reloading import reloaded
from dspex.configuration.settings import Settings
from dspex.jobs.lease import Lease
from dspex.jobs.ports import JOB_CANCELLED, JOB_PAUSED, JOBS_WAITING, JobEngine
from dspex.jobs.records import QUEUES
from dspex.jobs.rules import check_queue, queue_limits
from dspex.jobs.sweeping import Sweeper
from dspex.jobs.worker import Worker
from dspex.kit import collector
from dspex.kit.errors import DspexError, Internal, Invalid
from dspex.kit.ids import id_at
from dspex.kit.signals import RELOAD, RELOADED, Payload
from dspex.observability.logs import configure_logs
from dspex.storage.dialects.postgresql import split_address
from dspex.storage.sqlite.file import is_sqlite, path_of

log = structlog.get_logger(__name__)
PRUNE_S = 3600.0
FIRST_PRUNE_S = 60.0
# Uploads that came to nothing; nobody sends one batch for a day.
ABANDONED = timedelta(days=1)
LOOK_AT_PARENT_S = 1.0
# Beyond `server.drain_s`: an optimization has ten seconds for its calls in flight, and then all is written down.
LEAVE_S = 15.0
DEFECT = Internal("Reloading failed by a defect; the log says more.")


def work(file: Path | None, overrides: Mapping[str, Any], queues: Sequence[str]) -> None:
    """Raises DspexError when it can't start: Invalid without DBOS, or for a queue that does not exist."""
    # Until it can reload, so that asking for it too early does not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    inherit()
    wanted = [check_queue(name) for name in queues] or list(QUEUES)
    text = os.environ.pop(HANDED_DOWN, None)
    settings, source = opened(file, overrides) if text is None else from_text(text)
    if importlib.util.find_spec("dbos") is None:
        raise Invalid(
            "Jobs need an engine that is not installed; run pip install 'dspex[jobs]'.",
            code="job_engine_missing",
        )
    hide_secrets(settings)
    configure_logs(settings.log_level, settings.log_format)
    if text is None:
        # Else the node that started it has said so.
        warn_of_missing_keys(settings)
    check_pool_users(settings, source)
    asyncio.run(_WorkNode(settings, source, wanted, child=text is not None).run())
    log.info("worker_stopped")


class _WorkNode:
    """One worker: jobs under way end on the settings they began with, when the configuration is reloaded."""

    def __init__(self, settings: Settings, source: Source, queues: Sequence[str], *, child: bool) -> None:
        self._settings = settings
        self._source = source
        self._queues = queues
        self._parent = os.getppid() if child else None
        self._stop = asyncio.Event()
        self._worker: Worker | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()
        self._request = ""
        self._reloading = asyncio.Lock()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._end)
        async with self._stack as stack:
            foundation = await stack.enter_async_context(
                open_foundation(self._settings, serving=True, kind=WORKER)
            )
            await self._work(foundation)

    async def _work(self, foundation: Foundation) -> None:
        from dspex.providers.job_engine.engine import DbosEngine

        database, clock = foundation.database, foundation.clock
        run = self._settings.data_dir / "run" / "workers"
        for node in self._stack.enter_context(alive(run, foundation.node)):
            # It has not said goodbye; its jobs need not wait until it is missed.
            await database.nodes.leave(node)
        lease = Lease(lambda: database.nodes.beat(foundation.node, clock.now()), clock)
        await lease.beat()
        worker = self._worker = Worker(
            database.jobs,
            foundation.job_changes,
            await self._handlers(foundation, self._settings),
            lease,
            clock,
            foundation.facts,
            foundation.node,
        )
        engine = DbosEngine(
            _engine_address(self._settings.database),
            foundation.node,
            self._queues,
            queue_limits(self._settings.jobs.queues.items()),
        )
        sweeper = Sweeper(
            database.jobs,
            foundation.job_changes,
            engine,
            database.nodes.alive,
            clock,
            foundation.node,
            self._queues,
        )
        worker.woken, lease.look_after = sweeper.wake, worker.look_after
        self._listen(foundation, worker, sweeper)
        async with engine.running(worker.take):
            collector.settle()
            log.info("worker_started", node=foundation.node, queues=list(self._queues))
            self._begin(lease.beat_for_ever())
            self._begin(sweeper.sweep_for_ever())
            self._begin(sweeper.reap_for_ever())
            self._begin(self._prune_for_ever(foundation, engine))
            if self._parent is not None:
                self._begin(self._watch_parent(self._parent))
            await self._stop.wait()
            log.info("worker_stopping")
            await worker.stop(self._settings.server.drain_s)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _listen(self, foundation: Foundation, worker: Worker, sweeper: Sweeper) -> None:
        foundation.signals.on(JOBS_WAITING, lambda _: sweeper.wake())
        foundation.signals.on(JOB_CANCELLED, lambda payload: worker.cancel(payload["project"], payload["id"]))
        foundation.signals.on(JOB_PAUSED, lambda payload: worker.let_go(payload["project"], payload["id"]))

        def reload(payload: Payload) -> None:
            self._request = payload.get("request", "")
            self._begin(self._reload(foundation, worker))

        foundation.signals.on(RELOAD, reload)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: self._begin(self._reload(foundation, worker)))

    async def _handlers(self, foundation: Foundation, settings: Settings) -> Any:
        # The services of before are kept until the end: jobs may still run on them.
        limits = settings.limits.model_copy(update={"timeout_s": settings.jobs.timeout_s})
        patient = settings.model_copy(update={"limits": limits})
        services = await self._stack.enter_async_context(services_on(foundation, patient))
        return handlers(foundation, services, settings)

    async def _reload(self, foundation: Foundation, worker: Worker) -> None:
        request, self._request = self._request, ""
        async with self._reloading:
            try:
                wanted = await asyncio.to_thread(self._source.load)
                settings, waiting = reloaded(self._settings, wanted)
                hide_secrets(settings)
                worker.handlers = await self._handlers(foundation, settings)
                self._settings = settings
                if self._parent is None:
                    warn_of_missing_keys(settings)
            except DspexError as error:
                log.error("reload_refused", reason=str(error), code=error.code)
                outcome = {"outcome": "refused", "detail": str(error)}
            except Exception:
                log.exception("reload_failed")
                outcome = {"outcome": "refused", "detail": DEFECT.message}
            else:
                log.info("reloaded", needs_restart=waiting)
                outcome = {"outcome": "reloaded", "detail": ", ".join(waiting)}
        if request:
            try:
                told = {"request": request, "node": foundation.node, **outcome}
                await foundation.signals.send(RELOADED, told)
            except DspexError as error:
                log.warning("reload_not_reported", reason=error.message)

    async def _prune_for_ever(self, foundation: Foundation, engine: JobEngine) -> None:
        await asyncio.sleep(FIRST_PRUNE_S)
        while True:
            try:
                kept = self._settings.jobs
                await prune(
                    foundation,
                    engine,
                    timedelta(days=kept.keep_days),
                    timedelta(days=kept.optimization.journal_days),
                )
            except DspexError as error:
                log.warning("jobs_not_pruned", reason=error.message)
            except Exception:
                log.exception("jobs_not_pruned")
            await asyncio.sleep(PRUNE_S)

    async def _watch_parent(self, parent: int) -> None:
        """The server that started us may die without a word; another one starts workers of its own."""
        while os.getppid() == parent:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_AT_PARENT_S)
        log.warning("server_died")
        self._end()

    def _end(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            leaving = threading.Timer(self._settings.server.drain_s + LEAVE_S, self._leave)
            leaving.daemon = True
            leaving.start()

    def _leave(self) -> None:
        """Jobs wait for a database that is away however often they are cancelled, and so do threads: what they have

        not written is told by executions and journals to whoever takes them over.
        """
        log.warning("worker_left", jobs=[] if self._worker is None else self._worker.under_way)
        os._exit(0)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def prune(
    foundation: Foundation, engine: JobEngine, age: timedelta, journals: timedelta = timedelta(days=3)
) -> None:
    """Deletes jobs that ended so long ago, of the engine as well, uploads that came to nothing, and what optimizations

    need to go on.
    """
    now = foundation.clock.now()
    if jobs := await foundation.database.jobs.prune(completed_before=now - age):
        log.info("jobs_pruned", jobs=jobs)
    await engine.prune(completed_before=now - age)
    if items := await foundation.database.batches.prune(older_than_id=id_at(now - ABANDONED)):
        log.info("abandoned_batch_items_pruned", items=items)
    if pruned := await foundation.database.optimizations.prune(ended_before=now - journals):
        log.info("optimization_journals_pruned", optimizations=pruned)


def _engine_address(database: str) -> str:
    """Beside a SQLite file, as the engine's polling would wait for the same lock; on a server the same database."""
    if is_sqlite(database):
        path = Path(path_of(database)).absolute()
        return f"sqlite:///{path.with_name(f'{path.stem}-jobs.db')}"
    return split_address(database)[0]
