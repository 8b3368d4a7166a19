"""`dspex serve`: prepare the database and the programs once, then run one process or several."""

import asyncio
import math
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvicorn
from uvicorn.supervisors import Multiprocess

from dspex.application.banner import announce
from dspex.application.declaring import NotReady
from dspex.application.foundation import open_foundation
from dspex.application.hardening import forbid_inspection, stop_with_parent
from dspex.application.inheritance import Environment, Inheritance, inherit
from dspex.application.model_keys import warn_of_missing_keys
from dspex.application.node import Node
from dspex.application.observing import hide_secrets, make_metrics_directory
from dspex.application.origin import origin_of
from dspex.application.pool_users import check_pool_users
from dspex.application.preparing import prepare
from dspex.application.source import Source, from_text, opened, to_text
from dspex.application.unpriced import warn_of_unpriced_budgets
from dspex.application.work_processes import WorkProcesses
from dspex.application.working_names import HANDED_DOWN, JOBS_WAIT, PARENT
from dspex.configuration.reloading import reloaded
from dspex.configuration.settings import Settings
from dspex.kit.addresses import LOOPBACK
from dspex.kit.errors import DspexError, Invalid, Unavailable
from dspex.observability.logs import configure_logs

log = structlog.get_logger(__name__)


class _Server(uvicorn.Server):
    """Says that it is ready once it can be reached; ends with 0 when told to stop, not by the signal."""

    def __init__(self, config: uvicorn.Config, settings: Settings, node: Node) -> None:
        super().__init__(config)
        self._settings = settings
        self._node = node

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # While requests under way are finished, and not after that.
        self._node.leave()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            bound = [one for server in self.servers for one in server.sockets]
            announce(self._settings, self._node.not_ready, port=bound[0].getsockname()[1])

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()


class _Supervisor(Multiprocess):
    """Keeps the processes alive, and has the settings that the next one will be started with.

    While it runs its own environment is only what every program may be started with: uvicorn and Python start
    processes with that. Those that serve ask for the rest.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        sockets: list[socket.socket],
        settings: Settings,
        source: Source,
        metrics: Path,
    ) -> None:
        super().__init__(config, sockets)
        self._metrics = metrics
        self._known: set[int] = set()
        self._settings = settings
        self._source = source
        self._whole: Environment = {}
        self._inheritance = Inheritance(self._left_to)
        self._work = WorkProcesses(
            settings.jobs.workers, lambda: to_text(self._settings, self._source), lambda: self._whole
        )

    def run(self) -> None:
        signal.signal(JOBS_WAIT, lambda *_: self._work.ask())
        self._hand_down()
        super().run()
        self._work.join(self._settings.server.drain_s)
        self._inheritance.close()

    def _hand_down(self) -> None:
        """What this process knows of its environment goes to those that serve, and out of its own."""
        self._whole = {
            **os.environ,
            HANDED_DOWN: to_text(self._settings, self._source),
            PARENT: str(os.getpid()),
        }
        _replace_environment(self._inheritance.start_with(self._whole))

    def _left_to(self, pid: int) -> Environment | None:
        return self._whole if any(process.pid == pid for process in self.processes) else None

    def terminate_all(self) -> None:
        self._work.terminate()
        super().terminate_all()

    def keep_subprocess_alive(self) -> None:
        """Takes the gauges of a process that ended out of the metrics; what it counted stays."""
        super().keep_subprocess_alive()
        self._work.tend()
        living = {process.pid for process in self.processes if process.pid is not None}
        for ended in self._known - living:
            from dspex.observability.exposition import forget_process

            try:
                forget_process(ended, self._metrics)
            except BlockingIOError:
                # A scrape reads at this moment; the next round is soon.
                living.add(ended)
            except OSError as error:
                log.warning("metrics_not_merged", reason=str(error), process=ended)
        self._known = living

    def handle_signals(self) -> None:
        # Each process that was asked to reload asks us; once is enough.
        self.signal_queue[:] = dict.fromkeys(self.signal_queue)
        super().handle_signals()

    def handle_hup(self) -> None:
        """Hands the new configuration to the processes: they take it while they serve."""
        _replace_environment(self._whole)
        try:
            settings, waiting = reloaded(self._settings, self._source.load())
            # All that may be refused, so that a process that is started later has nothing that others refused.
            asyncio.run(_prepare(settings, self._source))
        except DspexError:
            # Each process refuses it as well, and says so to whoever asked.
            log.info("reloading", processes=len(self.processes))
        except Exception:
            # Whatever it was, the processes still need somebody who replaces and ends them.
            log.exception("reload_failed")
        else:
            self._settings = settings
            hide_secrets(settings)
            warn_of_missing_keys(settings)
            warn_of_unpriced_budgets(settings)
            log.info("reloading", processes=len(self.processes), needs_restart=waiting)
        self._hand_down()
        for process in self.processes:
            if process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)
        self._work.hang_up()


def check_exposure(settings: Settings) -> None:
    """Raises Invalid when others could take simulated answers for real."""
    if settings.simulated and settings.server.host not in LOOPBACK:
        raise Invalid(
            f"Listening on {settings.server.host} with the simulator as the default model would give others made-up "
            "answers. Set a real model under `models` in dspex.yaml.",
            code="simulator_exposed",
        )


def serve(file: Path | None, overrides: Mapping[str, Any]) -> None:
    """Runs until SIGTERM or SIGINT; finishes what is in flight first (`server.drain_s`).

    Raises DspexError when it can't start. The address is taken before anything is changed, so that starting
    twice by mistake does not touch the programs of the node that runs.
    """
    forbid_inspection()
    # Until the node can reload, so that asking for it too early does not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings, source = opened(file, overrides)
    check_exposure(settings)
    hide_secrets(settings)
    configure_logs(settings.log_level, settings.log_format)
    warn_of_missing_keys(settings)
    warn_of_unpriced_budgets(settings)
    check_pool_users(settings, source)
    options: dict[str, Any] = {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "timeout_graceful_shutdown": math.ceil(settings.server.drain_s),
        "lifespan": "on",
        "proxy_headers": False,
    }
    with ExitStack() as stack:
        address = stack.enter_context(_bound(settings.server.host, settings.server.port))
        sockets = [address]
        if settings.metrics.port is not None:
            sockets.append(stack.enter_context(_bound(settings.metrics.host, settings.metrics.port)))
        port = address.getsockname()[1]
        if settings.server.workers == 1:
            _serve_alone(Node(settings, source, prepare=True), settings, sockets, options)
            return
        not_ready = asyncio.run(_prepare(settings, source))
        metrics = make_metrics_directory(settings)
        announce(settings, not_ready, port=port)
        config = uvicorn.Config(
            "dspex.application.serving:worker", factory=True, workers=settings.server.workers, **options
        )
        _Supervisor(config, sockets, settings, source, metrics).run()
        log.info("stopped")


def _serve_alone(
    node: Node, settings: Settings, sockets: list[socket.socket], options: Mapping[str, Any]
) -> None:
    server = _Server(uvicorn.Config(node, **options), settings, node)
    try:
        server.run(sockets=sockets)
    except SystemExit:
        # uvicorn's own way to say that the application did not start.
        if node.failure is None:
            raise
    if node.failure is not None:
        raise node.failure
    log.info("stopped")


def _replace_environment(environment: Environment) -> None:
    wanted = dict(environment)
    os.environ.clear()
    os.environ.update(wanted)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.socket(family)
    address.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        address.bind((host, port))
        # Listening at once: of two that start together only one gets here.
        address.listen(2048)
    except OSError as error:
        address.close()
        raise Unavailable(
            f"{host}:{port} can't be listened on ({error.strerror}). If another service has it, choose a free "
            "port with --port, or with metrics.port if it is that one.",
            code="address_in_use",
        ) from None
    return address


def worker() -> Node:
    """One of several processes; the parent has prepared everything and read the configuration."""
    # Until the node can reload, as in `serve`: the supervisor's handler is not handed down.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    inherit()
    stop_with_parent(int(os.environ[PARENT]))
    settings, source = from_text(os.environ[HANDED_DOWN])
    hide_secrets(settings)
    configure_logs(settings.log_level, settings.log_format)
    return Node(settings, source, prepare=False, ask_parent=True)


async def _prepare(settings: Settings, source: Source) -> NotReady:
    async with open_foundation(settings) as foundation:
        return await prepare(foundation, settings, origin_of(source, settings))
