"""Connections to addresses that somebody else chose: to the public internet only, and to what was checked."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import ClientSession

# Both carry an IPv4 address in their last or second four bytes.
_NAT64 = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


class NotAllowed(Exception):
    """The address is, or leads to, one that is not public, or is written so that it can't be told."""


def is_public(text: str) -> bool:
    """Whether an IP address is one of the internet's: not private, loopback, link-local, metadata, multicast."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        inner = _ipv4_within(address)
        if inner is not None:
            return is_public(str(inner))
        if address.is_site_local or address in _NAT64_LOCAL:
            return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    )


def _ipv4_within(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64 or address.packed[:12] == bytes(12):
        return IPv4Address(address.packed[12:])
    if address in _SIX_TO_FOUR:
        return IPv4Address(address.packed[2:6])
    return None


async def _look_up(host: str, port: int, family: int) -> list[tuple[int, str, int]]:
    """Family, address and port of each address of a name."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
    return [(one[0], str(one[4][0]), int(one[4][1])) for one in found]


@asynccontextmanager
async def session_to(url: str, allow_private: bool, look_up: Any = None) -> "AsyncIterator[ClientSession]":
    """A session for one request. It connects to the very addresses that were checked, so that a name which

    answers differently the next time gains nothing. Raises NotAllowed.
    """
    import aiohttp
    from aiohttp.abc import AbstractResolver, ResolveResult
    from yarl import URL

    look_up = look_up or _look_up

    class Checked(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            found = await look_up(host, port, family)
            if not allow_private:
                for _, address, _ in found:
                    _check(host, address)
            return [
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=found_port,
                    family=found_family,
                    proto=0,
                    flags=socket.AI_NUMERICHOST,
                )
                for found_family, address, found_port in found
            ]

        async def close(self) -> None:
            """Nothing to close."""

    # The parser that connects, so that the address checked is the one connected to.
    host = URL(url).host or ""
    if _is_address(host):
        if not allow_private:
            # The resolver is not asked about these.
            _check(host, host)
    elif _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        # No name ends so, but systems take 127.1 or 2130706433 for addresses, and not all for the same.
        raise NotAllowed(f"{host} is neither a name nor an address as it is usually written, like 192.0.2.1.")
    connector = aiohttp.TCPConnector(resolver=Checked(), use_dns_cache=False, force_close=True)
    async with aiohttp.ClientSession(
        connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _check(host: str, address: str) -> None:
    if not is_public(address):
        where = host if host == address else f"{host}, which is {address},"
        raise NotAllowed(f"{where} is not a public address; set allow_private if it is meant.")
