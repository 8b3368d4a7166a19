"""Which addresses somebody else may make us call."""

import socket
from collections.abc import Sequence

import pytest

from dspex.providers.outward import NotAllowed, is_public, session_to
from tests.contracts.scripted_server import scripted_server


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "93.184.216.34",
        "2606:4700:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ],
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",  # noqa: S104 - an address to refuse
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:a9fe:a9fe",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::808:808",
        "2002:7f00:1::",
    ],
)
def test_everything_else_is_not(address: str) -> None:
    assert not is_public(address)


def found(*addresses: str):  # type: ignore[no-untyped-def]
    """A name server that knows these and remembers how often it was asked."""
    asked: list[str] = []

    async def look_up(host: str, port: int, family: int) -> Sequence[tuple[int, str, int]]:
        asked.append(host)
        return [(socket.AF_INET6 if ":" in one else socket.AF_INET, one, port) for one in addresses]

    return look_up, asked


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "http://[::1]:1/",
        "http://[::ffff:127.0.0.1]:1/",
        "http://169.254.169.254/latest",
    ],
)
async def test_private_addresses_are_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(NotAllowed, match="not a public address"):
        async with session_to(url, allow_private=False):
            raise AssertionError("a session was opened")


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "10.0.0.1"])
async def test_names_that_lead_there_are_refused_too(address: str) -> None:
    look_up, asked = found("8.8.8.8", address)
    with pytest.raises(NotAllowed, match=r"hooks\.example\.com, which is"):
        async with session_to("http://hooks.example.com/x", False, look_up) as session:
            await session.post("http://hooks.example.com/x")
    assert asked == ["hooks.example.com"]


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1", "0x7f.1", "127.0.0.1.", "8.8.2056"]
)
async def test_odd_spellings_of_addresses_are_refused_before_anybody_reads_them(
    host: str, allow_private: bool
) -> None:
    look_up, asked = found("8.8.8.8")
    with pytest.raises(NotAllowed, match="neither a name nor an address"):
        async with session_to(f"http://{host}:1/", allow_private, look_up):
            raise AssertionError("a session was opened")
    assert asked == []


async def test_names_may_have_numbers_in_them() -> None:
    for host in ("hooks-1.example.com", "1password.example", "0.pool.example", "9.x1"):
        async with session_to(f"https://{host}/", False):
            pass


async def test_the_address_that_was_checked_is_the_one_called() -> None:
    async with scripted_server() as server:
        port = server.url.rpartition(":")[2]
        look_up, asked = found("127.0.0.1")
        url = f"http://hooks.example.com:{port}/x"
        async with session_to(url, True, look_up) as session, session.post(url, data=b"{}") as response:
            assert response.status == 200
        assert server.received[0].headers["host"] == f"hooks.example.com:{port}"
        assert asked == ["hooks.example.com"]
