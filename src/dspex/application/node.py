"""One serving process as an ASGI application, and how it takes a new configuration."""

import asyncio
import os
import signal
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import structlog
from msgspec import Struct

from dspex.access.records import CLI, DEFAULT_PROJECT, LOCAL, Author
from dspex.application.declaring import NotReady
from dspex.application.foundation import Foundation, open_foundation
from dspex.application.hardening import keep_descriptors
from dspex.application.model_keys import warn_of_missing_keys
from dspex.application.observing import hide_secrets
from dspex.application.origin import origin_of
from dspex.application.preparing import declare_file, prepare
from dspex.application.source import Source, to_text
from dspex.application.unpriced import warn_of_unpriced_budgets
from dspex.application.wiring import services_on
from dspex.application.work_processes import WorkProcesses
from dspex.application.working_names import JOBS_WAIT
from dspex.configuration.reloading import changed_models, reloaded
from dspex.configuration.settings import Settings
from dspex.interfaces.rest.app import RestApplication, create_application
from dspex.interfaces.rest.exchange import Receive, Scope, Send
from dspex.jobs.ports import JOBS_WAITING
from dspex.kit import collector
from dspex.kit.errors import DspexError, Internal
from dspex.kit.signals import RELOAD, RELOADED, Payload

log = structlog.get_logger(__name__)
# How often it is looked whether requests still run on settings of before.
LOOK_S = 0.2
# How often workers that ended are replaced, and when jobs are looked for that nobody told of.
TEND_S = 0.5
FIRST_LOOK_S = 1.0
LOOK_AGAIN_S = 30.0
DEFECT = Internal("Reloading failed by a defect; the log says more.")


class _Running(Struct):
    """What answers at the moment; `stack` closes it. `requests` are those under way."""

    settings: Settings
    application: RestApplication
    stack: AsyncExitStack
    requests: int = 0


class Node:
    """Its foundation lives as long as the lifespan, its services until the configuration is reloaded.

    `failure` is why it could not start. With `prepare` it declares the programs of the file when it starts.
    `ask_parent` is set in one of several processes: reloading begins with their parent there.
    """

    def __init__(
        self, settings: Settings, source: Source, *, prepare: bool, ask_parent: bool = False
    ) -> None:
        self._settings = settings
        self._source = source
        self._prepare = prepare
        self._ask_parent = ask_parent
        self._foundation: Foundation | None = None
        self._running: _Running | None = None
        self._stack = AsyncExitStack()
        self._reloading = asyncio.Lock()
        self._request = ""
        self._tasks: set[asyncio.Task[None]] = set()
        # In one of several processes the parent has the workers.
        workers = 0 if ask_parent else settings.jobs.workers
        self._work = WorkProcesses(workers, lambda: to_text(self._now(), source))
        self.failure: DspexError | None = None
        self.not_ready: NotReady = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        running = self._running
        if running is None:
            raise RuntimeError("the lifespan has not started")
        running.requests += 1
        try:
            await running.application(scope, receive, send)
        finally:
            running.requests -= 1

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._start()
        except DspexError as error:
            self.failure = error
            await self._stop()
            await send({"type": "lifespan.startup.failed", "message": ""})
            return
        except BaseException:
            await self._stop()
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        log.info("stopping")
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        keep_descriptors()
        self._foundation = await self._stack.enter_async_context(
            open_foundation(self._settings, serving=True)
        )
        self._running = await self._built(self._foundation, self._settings)
        if self._prepare:
            self.not_ready = await prepare(
                self._foundation, self._settings, origin_of(self._source, self._settings)
            )
        self._foundation.signals.on(RELOAD, self._asked_to_reload)
        self._foundation.signals.on(JOBS_WAITING, lambda _: self._ask_for_workers())
        self._begin(self._tend_workers(self._foundation))
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hung_up)
        collector.settle()

    def _now(self) -> Settings:
        return self._settings if self._running is None else self._running.settings

    def leave(self) -> None:
        """Has the processes that run jobs end as well. Called when this one is told to, by a signal's handler."""
        self._work.terminate()

    async def _stop(self) -> None:
        self._work.terminate()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._work.join, self._settings.server.drain_s)
        if self._running is not None:
            await self._running.stack.aclose()
        await self._stack.aclose()

    async def _built(self, foundation: Foundation, settings: Settings) -> _Running:
        stack = AsyncExitStack()
        services = await stack.enter_async_context(services_on(foundation, settings))
        return _Running(settings, create_application(services), stack)

    async def reload(self) -> None:
        """Reads the configuration again; it comes into force whole, or is refused and the log says why.

        Requests under way end on the settings they began with. Whoever asked by a signal is told what came of it.
        """
        request, self._request = self._request, ""
        async with self._reloading:
            try:
                waiting = await self._reload(CLI if request else LOCAL)
            except DspexError as error:
                log.error("reload_refused", reason=str(error), code=error.code)
                outcome = {"outcome": "refused", "detail": str(error)}
            except Exception:
                log.exception("reload_failed")
                outcome = {"outcome": "refused", "detail": DEFECT.message}
            else:
                log.info("reloaded", needs_restart=waiting)
                outcome = {"outcome": "reloaded", "detail": ", ".join(waiting)}
        if not request:
            # Who was asked through the database hears of it there.
            self._work.hang_up()
        if self._foundation is not None and request:
            told = {"request": request, "node": self._foundation.node, **outcome}
            try:
                await self._foundation.signals.send(RELOADED, told)
            except DspexError as error:
                log.warning("reload_not_reported", reason=error.message)

    async def _reload(self, actor: str) -> list[str]:
        foundation, before = self._foundation, self._running
        if foundation is None or before is None:
            raise RuntimeError("the lifespan has not started")
        author = Author(DEFAULT_PROJECT, actor)
        async with foundation.audit.operation(author, "config.reload", foundation.node):
            return await self._take_over(foundation, before)

    async def _take_over(self, foundation: Foundation, before: _Running) -> list[str]:
        wanted = await asyncio.to_thread(self._source.load)
        settings, waiting = reloaded(before.settings, wanted)
        hide_secrets(settings)
        after = await self._built(foundation, settings)
        try:
            await declare_file(foundation, settings, origin_of(self._source, settings))
        except BaseException:
            await after.stack.aclose()
            raise
        self._running = after
        if not self._ask_parent:
            # Else the parent says so, once for all processes.
            warn_of_missing_keys(settings)
            warn_of_unpriced_budgets(settings)
        self._begin(_retire(before))
        foundation.gateway.lanes.renew(settings.models.registry)
        for alias in changed_models(before.settings, settings):
            # What was learned of the model that the alias meant before says nothing of the one it means now.
            foundation.gateway.breakers.renew(alias)
        return waiting

    def _ask_for_workers(self) -> None:
        if self._ask_parent:
            os.kill(os.getppid(), JOBS_WAIT)
        else:
            self._work.ask()
            self._work.tend()

    async def _tend_workers(self, foundation: Foundation) -> None:
        """Workers start with the first job, or when jobs of before are found some moments after the start."""
        look_at = time.monotonic() + FIRST_LOOK_S
        while True:
            await asyncio.sleep(TEND_S)
            self._work.tend()
            if time.monotonic() < look_at:
                continue
            look_at = time.monotonic() + LOOK_AGAIN_S
            try:
                if await foundation.database.jobs.unfinished():
                    self._ask_for_workers()
            except DspexError as error:
                log.warning("jobs_not_looked_for", reason=error.message)

    def _asked_to_reload(self, payload: Payload) -> None:
        self._request = payload.get("request", "")
        if self._ask_parent:
            # It hands the settings to processes that it starts later, so it has to have them first; then it
            # hangs up on all of us.
            os.kill(os.getppid(), signal.SIGHUP)
        else:
            self._hung_up()

    def _hung_up(self) -> None:
        self._begin(self.reload())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _retire(running: _Running) -> None:
    """Closes what answered before, once its last request is over."""
    try:
        while running.requests:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
    finally:
        await running.stack.aclose()
        del running
        collector.clear_out()
