"""Redis for tests: the one of this machine with keys of the test's own, or a server that may be killed.

Without a Redis its tests are skipped, and the last line of the run says so; with CI=true they fail.
"""

import os
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from dspex.kit.clock import SystemClock
from dspex.providers.redis.link import RedisLink
from tests.plugins.databases import missing
from tests.plugins.service import free_port

ADDRESS = os.environ.get("DSPEX_TEST_REDIS_URL") or "redis://127.0.0.1:6379/0"


def _reachable(url: str) -> bool:
    with Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False


@pytest.fixture(scope="session")
def redis_url() -> str:
    """The address of a server on which others work as well: use `redis_prefix`."""
    if _reachable(ADDRESS):
        return ADDRESS
    if os.environ.get("CI") == "true":
        pytest.fail("Redis can't be reached, and CI=true asks for it: set DSPEX_TEST_REDIS_URL")
    missing("the Redis tests, no server was found; set DSPEX_TEST_REDIS_URL to run them")
    pytest.skip("Redis can't be reached")


@pytest.fixture
def redis_prefix(redis_url: str) -> Iterator[str]:
    """What the test's keys begin with; they are removed afterwards."""
    prefix = f"dspex_test_{secrets.token_hex(6)}"
    yield prefix
    with Redis.from_url(redis_url) as client:
        for key in client.scan_iter(f"{prefix}:*"):
            client.delete(key)


@pytest.fixture
async def redis_link(redis_url: str, redis_prefix: str) -> AsyncIterator[RedisLink]:
    link = RedisLink(redis_url, redis_prefix, SystemClock())
    yield link
    await link.aclose()


class OwnRedis:
    """A server of the test's own, without any persistence."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command = ["redis-server", *options, "--dir", str(self._directory)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not _reachable(self.url):
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None


@contextmanager
def own_redis(directory: Path) -> Iterator[OwnRedis]:
    server = OwnRedis(directory)
    server.start()
    try:
        yield server
    finally:
        server.kill()
