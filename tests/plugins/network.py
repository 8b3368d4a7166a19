"""Tests reach nothing but this machine. What they start in processes of their own is not covered."""

import os
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import pytest

# The servers that may be elsewhere, because somebody said so.
_ASKED = tuple(
    urlsplit(os.environ.get(name, "")).hostname
    for name in ("DSPEX_TEST_POSTGRES_URL", "DSPEX_TEST_REDIS_URL")
)


def is_here(host: object) -> bool:
    """Whether a host of an address is this machine, or a server that the run was given."""
    if host in (None, "", "localhost", b"localhost", *_ASKED):
        return True
    try:
        return ip_address(host.decode() if isinstance(host, bytes) else str(host)).is_loopback
    except ValueError:
        return False


def _guarded(real: Callable[..., Any], host_of: Callable[..., object]) -> Callable[..., Any]:
    def guarded(*arguments: Any, **named: Any) -> Any:
        host = host_of(*arguments)
        if not is_here(host):
            pytest.fail(f"a test tried to reach {host!r}; tests stay on this machine")
        return real(*arguments, **named)

    return guarded


def _connects_to(connection: socket.socket, address: Any) -> object:
    return address[0] if connection.family in (socket.AF_INET, socket.AF_INET6) else None


@pytest.fixture(scope="session", autouse=True)
def nothing_leaves_this_machine() -> Iterator[None]:
    """Names are not looked up and connections not made; asyncio's loop uses the same functions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _guarded(socket.socket.connect, _connects_to))
        patch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex, _connects_to))
        patch.setattr(socket, "getaddrinfo", _guarded(socket.getaddrinfo, lambda host, *_: host))
        yield
