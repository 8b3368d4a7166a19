"""Caches in memory, put together as a node has them."""

from dspex.application.caches import OpenCaches, memory_cache, put_together
from dspex.configuration.caching import CacheSettings
from dspex.gateway.ports import AnswerCache
from dspex.kit.clock import Clock, SystemClock
from dspex.kit.facts import Facts
from dspex.kit.signals import LocalSignals, Signals


def caches_in_memory(
    bounds: CacheSettings | None = None,
    clock: Clock | None = None,
    facts: Facts | None = None,
    signals: Signals | None = None,
    replies: AnswerCache | None = None,
) -> OpenCaches:
    bounds = bounds or CacheSettings()
    return put_together(
        bounds,
        replies or memory_cache(bounds, share=0.5),
        memory_cache(bounds, share=0.5),
        memory_cache(bounds.embeddings),
        clock or SystemClock(),
        facts or Facts(),
        signals or LocalSignals(),
    )
