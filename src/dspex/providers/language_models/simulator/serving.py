"""Running the simulator as a server of its own."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dspex.kit.errors import Invalid, Unavailable
from dspex.providers.language_models.simulator.app import SimulatorApp
from dspex.providers.language_models.simulator.engine import Simulator, SimulatorOptions


class _BreakableProtocol(HttpToolsProtocol):
    """Lets the application reach the connection, so that it can be reset or cut."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: Any = {"simulator.transport": self.transport}
        self.scope["extensions"] = extensions


class _AnnouncingServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()


def run_simulator(
    host: str = "127.0.0.1",
    port: int = 9300,
    options: SimulatorOptions | None = None,
    *,
    control: bool | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is told the base URL, with /v1, once connections are accepted.

    Port 0 takes a free one. `control` opens the control addresses; by default on loopback only.
    Raises Unavailable when the address can't be bound.
    """
    bound = _bind(host, port)
    host_and_port = f"[{host}]" if bound.family == socket.AF_INET6 else host
    base_url = f"http://{host_and_port}:{bound.getsockname()[1]}/v1"
    app = SimulatorApp(Simulator(options), allow_control=_is_loopback(bound) if control is None else control)
    config = uvicorn.Config(
        app,
        http=_BreakableProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=4096,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    with bound:
        _AnnouncingServer(config, lambda: ready(base_url) if ready else None).run(sockets=[bound])


def _is_loopback(bound: socket.socket) -> bool:
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65_535:
        # What resolves addresses would take a part of the number.
        raise Invalid(
            f"{port} is no port; choose a --port up to 65535, or 0 for a free one", code="bad_argument"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Unavailable(
            f"{host!r} is no address of this machine: {error}", code="address_unknown"
        ) from None
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise Unavailable(
            f"the simulator can't listen on {host}:{port}: {error.strerror}; choose another --port",
            code="address_in_use",
        ) from None
    return bound
