"""Puts the caches together: in memory, over Redis where there is one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from dspex.configuration.caching import CacheBounds, CacheSettings
from dspex.configuration.settings import Settings
from dspex.executions.caching import KeptPrediction
from dspex.gateway.answers import Answers, Caches
from dspex.gateway.ports import AnswerCache
from dspex.gateway.steps.caching import KeptReply
from dspex.gateway.vectors import KeptVector
from dspex.kit.clock import Clock
from dspex.kit.facts import Facts
from dspex.kit.signals import Signals
from dspex.providers.memory.cache import MemoryCache

if TYPE_CHECKING:
    from dspex.providers.redis.link import RedisLink


class OpenCaches(Struct, frozen=True):
    """The caches of a node, by what they keep."""

    replies: Answers[KeptReply]
    predictions: Answers[KeptPrediction]
    vectors: Answers[KeptVector]
    caches: Caches


@asynccontextmanager
async def open_caches(
    settings: Settings, redis: "RedisLink | None", clock: Clock, facts: Facts, signals: Signals
) -> AsyncIterator[OpenCaches]:
    """Predictions are in memory only: out of a shared reply one is made faster than Redis would answer."""
    bounds = settings.cache
    near_replies, near_vectors = memory_cache(bounds, share=0.5), memory_cache(bounds.embeddings)
    replies: AnswerCache = near_replies
    vectors: AnswerCache = near_vectors
    async with AsyncExitStack() as stack:
        if redis is not None:
            from dspex.providers.redis.cache import RedisCache
            from dspex.providers.redis.two_level import TwoLevelCache

            replies = TwoLevelCache(near_replies, RedisCache(redis, "reply", ttl_s=bounds.ttl_s))
            stack.push_async_callback(replies.aclose)
            far_vectors = RedisCache(redis, "embedding", ttl_s=bounds.embeddings.ttl_s)
            vectors = TwoLevelCache(near_vectors, far_vectors)
            stack.push_async_callback(vectors.aclose)
        predictions = memory_cache(bounds, share=0.5)
        yield put_together(bounds, replies, predictions, vectors, clock, facts, signals)


def put_together(
    bounds: CacheSettings,
    replies: AnswerCache,
    predictions: AnswerCache,
    vectors: AnswerCache,
    clock: Clock,
    facts: Facts,
    signals: Signals,
) -> OpenCaches:
    kept_replies = Answers("reply", KeptReply, replies, clock, facts, bounds)
    kept_predictions = Answers("prediction", KeptPrediction, predictions, clock, facts, bounds)
    kept_vectors = Answers("embedding", KeptVector, vectors, clock, facts, bounds.embeddings)
    caches = Caches((kept_replies, kept_predictions, kept_vectors), signals)
    return OpenCaches(kept_replies, kept_predictions, kept_vectors, caches)


def memory_cache(bounds: CacheBounds, share: float = 1.0) -> MemoryCache:
    """`share` of the bytes: those of replies and predictions are for both together."""
    return MemoryCache(
        entries=bounds.entries, memory_bytes=int(bounds.memory_bytes * share), ttl_s=bounds.ttl_s
    )
