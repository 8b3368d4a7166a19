"""The connection to Redis, which may be away at any time: slower, never failing."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import structlog

from dspex.kit.addresses import without_secrets
from dspex.kit.clock import Clock

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)
T = TypeVar("T")
CONNECT_S = 0.5
ANSWER_S = 0.5
# Once Redis did not answer, requests go on without it and only look again after this time.
AWAY_S = 1.0
CONNECTIONS = 50


class RedisAway(Exception):
    """Redis is down, slow, or does not speak sense: go on without it."""


class RedisLink:
    """One pool of connections. Keys of DSPex begin with `prefix` and a colon."""

    def __init__(self, url: str, prefix: str, clock: Clock) -> None:
        self.prefix = prefix
        self._url = url
        self._clock = clock
        self._client: Redis | None = None
        self._away_until = 0.0
        self._known_away = False
        self._trying = False

    @property
    def away(self) -> bool:
        """Whether Redis failed a moment ago, so that nobody asks it for now."""
        return self._clock.monotonic() < self._away_until

    def key(self, *parts: str) -> str:
        return ":".join((self.prefix, *parts))

    async def run(self, use: "Callable[[Redis], Awaitable[T]]") -> T:
        """What `use` returns. Raises RedisAway at once while Redis is known to be away, and when it fails."""
        if self.away or self._trying:
            raise RedisAway
        # Of those that come when it may be back one tries, and the others go on without it.
        self._trying = self._known_away
        try:
            answer = await use(self._opened())
        except Exception as error:
            # Whatever answers there may be no Redis: its client fails in many ways on what it does not understand.
            self._away_until = self._clock.monotonic() + AWAY_S
            if not self._known_away:
                self._known_away = True
                log.warning("redis_away", redis=without_secrets(self._url), reason=repr(error))
            raise RedisAway from error
        finally:
            self._trying = False
        if self._known_away:
            self._known_away = False
            log.info("redis_back", redis=without_secrets(self._url))
        return answer

    def _opened(self) -> "Redis":
        if self._client is None:
            # Imported here: a node without Redis never loads it.
            from redis.asyncio import BlockingConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff

            # Waits for a free connection; the plain pool fails beyond its number, which a busy moment reaches.
            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=CONNECTIONS,
                timeout=ANSWER_S,
                socket_connect_timeout=CONNECT_S,
                socket_timeout=ANSWER_S,
                # What was queued for a dead connection is asked once more on a new one, then given up.
                retry=Retry(NoBackoff(), 1),
                health_check_interval=0,
            )
            self._client = Redis.from_pool(pool)
        return self._client

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
