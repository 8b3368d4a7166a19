"""`dspex serve`: prepare the database and the programs once, then run one process or several."""

import asyncio
import gc
import math
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from uvicorn.supervisors import Multiprocess

from dspex.application.banner import announce
from dspex.application.declaring import declare
from dspex.application.hardening import forbid_inspection
from dspex.application.wiring import open_services
from dspex.configuration.loading import hand_down, load_settings, take_up
from dspex.configuration.settings import Settings
from dspex.interfaces.rest.app import RestApplication, create_application
from dspex.interfaces.rest.exchange import Receive, Scope, Send
from dspex.kit.errors import DspexError, Invalid, Unavailable
from dspex.observability.logs import configure_logs

log = structlog.get_logger(__name__)
_HANDED_DOWN = "DSPEX_HANDED_DOWN"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
PROJECT = "default"


class Node:
    """One serving process as an ASGI application: its services live as long as the lifespan.

    `failure` is why it could not start.
    """

    def __init__(self, settings: Settings, directory: Path, *, prepare: bool) -> None:
        self._settings = settings
        self._directory = directory
        self._prepare = prepare
        self._application: RestApplication | None = None
        self._stack = AsyncExitStack()
        self.failure: DspexError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if self._application is None:
            raise RuntimeError("the lifespan has not started")
        await self._application(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._start()
        except DspexError as error:
            self.failure = error
            await self._stack.aclose()
            await send({"type": "lifespan.startup.failed", "message": ""})
            return
        except BaseException:
            await self._stack.aclose()
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        log.info("stopping")
        await self._stack.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        services = await self._stack.enter_async_context(open_services(self._settings, serving=True))
        if self._prepare:
            await declare(services.programs, self._settings, PROJECT, self._directory)
        self._application = create_application(services)
        # What is loaded stays for the life of the process; the collector need not look at it again.
        gc.freeze()
        gc.enable()


class _Server(uvicorn.Server):
    """Says that it is ready once it can be reached; ends with 0 when told to stop, not by the signal."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            bound = [one for server in self.servers for one in server.sockets]
            announce(self._settings, port=bound[0].getsockname()[1])

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def check_exposure(settings: Settings) -> None:
    """Raises Invalid when others could reach the service without keys, or take simulated answers for real."""
    if settings.server.host in _LOOPBACK:
        return
    if settings.simulated:
        raise Invalid(
            f"Listening on {settings.server.host} with the simulator as the default model would give others made-up "
            "answers. Set a real model under `models` in dspex.yaml.",
            code="simulator_exposed",
        )
    if settings.server.allow_unauthenticated:
        return
    raise Invalid(
        f"Listening on {settings.server.host} would let anyone who reaches it spend your model budget: DSPex asks "
        "for no keys yet. Listen on 127.0.0.1 behind a proxy that authenticates, or accept it with "
        "DSPEX_SERVER__ALLOW_UNAUTHENTICATED=true.",
        code="exposed_without_access",
    )


def serve(file: Path | None, overrides: Mapping[str, Any]) -> None:
    """Runs until SIGTERM or SIGINT; finishes what is in flight first (`server.drain_s`).

    Raises DspexError when it can't start. The address is taken before anything is changed, so that starting
    twice by mistake does not touch the programs of the node that runs.
    """
    forbid_inspection()
    settings, path = load_settings(file, **overrides)
    check_exposure(settings)
    configure_logs(settings.log_level, settings.log_format)
    directory = path.parent if path else Path()
    options: dict[str, Any] = {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "timeout_graceful_shutdown": math.ceil(settings.server.drain_s),
        "lifespan": "on",
        "proxy_headers": False,
    }
    with _bound(settings) as address:
        port = address.getsockname()[1]
        if settings.server.workers == 1:
            _serve_alone(Node(settings, directory, prepare=True), settings, address, options)
            return
        asyncio.run(_prepare(settings, directory))
        os.environ[_HANDED_DOWN] = hand_down(settings)
        announce(settings, port=port)
        config = uvicorn.Config(
            "dspex.application.serving:worker", factory=True, workers=settings.server.workers, **options
        )
        Multiprocess(config, sockets=[address]).run()
        log.info("stopped")


def _serve_alone(node: Node, settings: Settings, address: socket.socket, options: Mapping[str, Any]) -> None:
    server = _Server(uvicorn.Config(node, **options), settings)
    try:
        server.run(sockets=[address])
    except SystemExit:
        # uvicorn's own way to say that the application did not start.
        if node.failure is None:
            raise
    if node.failure is not None:
        raise node.failure
    log.info("stopped")


def _bound(settings: Settings) -> socket.socket:
    host, port = settings.server.host, settings.server.port
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
            "port with --port.",
            code="address_in_use",
        ) from None
    return address


def worker() -> Node:
    """One of several processes; the parent has prepared everything and read the configuration."""
    forbid_inspection()
    settings = take_up(os.environ[_HANDED_DOWN])
    configure_logs(settings.log_level, settings.log_format)
    return Node(settings, Path(), prepare=False)


async def _prepare(settings: Settings, directory: Path) -> None:
    async with open_services(settings) as services:
        await declare(services.programs, settings, PROJECT, directory)
