"""One suite for the caches in memory, in Redis, and of both."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dspex.gateway.ports import AnswerCache
from dspex.gateway.records import CacheEntry
from dspex.kit.clock import SystemClock
from dspex.providers.memory.cache import OVERHEAD, MemoryCache
from dspex.providers.redis.cache import RedisCache
from dspex.providers.redis.link import RedisAway, RedisLink
from dspex.providers.redis.two_level import TwoLevelCache

P = "default"
ENTRY = CacheEntry(100.0, b'{"text": "Paris"}')


def in_memory(entries: int = 100, memory_bytes: int = 10**6) -> MemoryCache:
    return MemoryCache(entries=entries, memory_bytes=memory_bytes, ttl_s=60)


@pytest.fixture(params=["memory", "redis", "two levels"])
async def cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield in_memory()
        return
    address, prefix = (request.getfixturevalue(name) for name in ("redis_url", "redis_prefix"))
    # A node would rather go on without it than wait; here it is to answer, on a busy machine too.
    monkeypatch.setattr("dspex.providers.redis.link.CONNECT_S", 20.0)
    monkeypatch.setattr("dspex.providers.redis.link.ANSWER_S", 20.0)
    link = RedisLink(address, prefix, SystemClock())
    redis = RedisCache(link, "reply", ttl_s=60)
    if request.param == "redis":
        yield redis
    else:
        both = TwoLevelCache(in_memory(), redis)
        yield both
        await both.aclose()
    await link.aclose()


@pytest.fixture
def node(redis_link: RedisLink) -> Callable[[], TwoLevelCache]:
    """Another node on the same Redis."""
    return lambda: TwoLevelCache(in_memory(), RedisCache(redis_link, "reply", ttl_s=60))


async def kept(cache: AnswerCache, project: str = P, key: str = "k", entry: CacheEntry = ENTRY) -> None:
    await cache.put(project, key, entry, await cache.generation(project))


async def value(cache: AnswerCache, project: str = P, key: str = "k", since: float = 0) -> bytes | None:
    found = await cache.get(project, key, since=since)
    return None if found is None else found.value


async def test_what_is_kept_is_found_by_project_and_key(cache: AnswerCache) -> None:
    assert await value(cache) is None
    await kept(cache)
    assert await value(cache) == ENTRY.value
    assert await value(cache, "other") is None
    assert await value(cache, P, "other") is None


async def test_many_keys_are_looked_for_together_in_their_order(cache: AnswerCache) -> None:
    keys = [f"k{number}" for number in range(600)]
    assert await cache.get_all(P, keys, since=0) == [None] * 600
    assert await cache.get_all(P, [], since=0) == []
    generation = await cache.generation(P)
    for number in (0, 299, 599):
        await cache.put(P, keys[number], CacheEntry(100.0 + number, b"%d" % number), generation)
    await cache.put("other", "k1", ENTRY, await cache.generation("other"))
    found = await cache.get_all(P, keys, since=0)
    assert {place: one.value for place, one in enumerate(found) if one} == {0: b"0", 299: b"299", 599: b"599"}
    again = await cache.get_all(P, keys[::-1], since=200.0)
    assert {place: one.value for place, one in enumerate(again) if one} == {0: b"599", 300: b"299"}


async def test_projects_and_keys_can_not_be_mixed_up(cache: AnswerCache) -> None:
    await kept(cache, "a", "b:c")
    assert await value(cache, "a:b", "c") is None
    assert await value(cache, "", "a:b:c") is None


async def test_entries_older_than_wanted_are_not_found(cache: AnswerCache) -> None:
    await kept(cache)
    found = await cache.get(P, "k", since=100.0)
    assert found is not None and found.created_at == 100.0
    assert await cache.get(P, "k", since=100.5) is None


async def test_a_later_entry_replaces_the_earlier(cache: AnswerCache) -> None:
    await kept(cache)
    await kept(cache, entry=CacheEntry(200.0, b"later"))
    assert await value(cache) == b"later"


@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 500, b"x" * 300_000])
async def test_any_bytes_come_back(cache: AnswerCache, content: bytes) -> None:
    await kept(cache, entry=CacheEntry(100.0, content))
    assert await value(cache) == content


async def test_what_is_discarded_is_gone(cache: AnswerCache) -> None:
    await kept(cache)
    await kept(cache, key="other")
    await cache.discard(P, "k")
    await cache.discard(P, "never kept")
    assert await value(cache) is None
    assert await value(cache, key="other") is not None


async def test_clearing_a_project_leaves_the_others(cache: AnswerCache) -> None:
    await kept(cache)
    await kept(cache, "other")
    assert await cache.clear(P) is True
    assert await value(cache) is None
    assert await value(cache, "other") == ENTRY.value
    await kept(cache)
    assert await value(cache) == ENTRY.value


async def test_clearing_everything(cache: AnswerCache) -> None:
    for project in (P, "other"):
        await kept(cache, project)
    await cache.clear(None)
    assert [await value(cache, project) for project in (P, "other")] == [None, None]


@pytest.mark.parametrize("cleared", [P, None])
async def test_what_was_begun_before_a_clearing_is_not_kept_after(
    cache: AnswerCache, cleared: str | None
) -> None:
    begun = await cache.generation(P)
    await cache.clear(cleared)
    await cache.put(P, "k", ENTRY, begun)
    assert await value(cache) is None


async def test_many_at_once(cache: AnswerCache) -> None:
    await asyncio.gather(*(kept(cache, key=str(one)) for one in range(80)))
    found = await asyncio.gather(*(value(cache, key=str(one)) for one in range(80)))
    assert found == [ENTRY.value] * 80


async def test_memory_holds_no_more_entries_and_bytes_than_allowed() -> None:
    few = in_memory(entries=50)
    for number in range(1000):
        await kept(few, key=str(number))
        assert few.size().entries <= 50
    assert few.size().entries == 50
    small = in_memory(entries=50, memory_bytes=50_000)
    for number in range(200):
        await kept(small, key=str(number), entry=CacheEntry(1.0, b"x" * 9_600))
        assert small.size().size_bytes <= 50_000
    assert small.size().entries == 50_000 // (9_600 + OVERHEAD)
    await kept(small, key="larger than all", entry=CacheEntry(1.0, b"x" * 60_000))
    assert small.size().size_bytes <= 50_000


async def test_what_is_asked_for_often_outlives_a_flood_of_others() -> None:
    cache = in_memory(entries=50)
    await kept(cache, key="often")
    for number in range(500):
        assert await value(cache, key="often") is not None, number
        await kept(cache, key=f"once {number}")


async def test_the_size_counts_what_can_be_reached() -> None:
    cache = in_memory()
    for project in ("a", "b", "b"):
        await kept(cache, project, secrets.token_hex(4))
    assert cache.size().entries == 3
    await cache.clear("b")
    assert (cache.size().entries, cache.size().size_bytes) == (1, len(ENTRY.value) + OVERHEAD)
    await cache.clear(None)
    assert (cache.size().entries, cache.size().size_bytes) == (0, 0)


async def test_nodes_share_through_redis(node: Callable[[], TwoLevelCache]) -> None:
    one, other = node(), node()
    await kept(one)
    await one.aclose()
    found = await other.get(P, "k", since=0)
    assert found is not None and (found.value, found.level) == (ENTRY.value, "redis")
    again = await other.get(P, "k", since=0)
    assert again is not None and again.level == "memory"


async def test_an_old_entry_in_memory_does_not_hide_a_younger_one_in_redis(
    node: Callable[[], TwoLevelCache],
) -> None:
    one, other = node(), node()
    await kept(one)
    await kept(other, entry=CacheEntry(200.0, b"younger"))
    await other.aclose()
    assert await value(one) == ENTRY.value
    assert await value(one, since=150.0) == b"younger"
    assert await value(one) == b"younger"


async def test_after_a_clearing_on_one_node_no_other_keeps_what_it_had_begun(
    node: Callable[[], TwoLevelCache],
) -> None:
    one, other = node(), node()
    await kept(one)
    await one.aclose()
    assert await value(other) == ENTRY.value
    begun = await other.generation(P)
    told = await one.clear(P)
    # The other node's call ends before it hears of the clearing.
    await other.put(P, "late", ENTRY, begun)
    await other.aclose()
    other.heard(P, told=told)
    for cache in (one, other, node()):
        assert [await value(cache, key=key) for key in ("k", "late")] == [None, None]


@pytest.mark.parametrize(
    "garbage",
    [b"", b"short", b"\xff" * 200, b"0" * 31 + b"\x00" * 8 + b"{}"],
    ids=["", "short", "long", "marks"],
)
async def test_garbage_in_redis_is_a_miss_and_is_overwritten(redis_link: RedisLink, garbage: bytes) -> None:
    cache = RedisCache(redis_link, "reply", ttl_s=60)
    await kept(cache)
    name = redis_link.key("cache", "reply", "entry", P, "k")
    await redis_link.run(lambda redis: redis.set(name, garbage))
    assert await value(cache) is None
    await kept(cache)
    assert await value(cache) == ENTRY.value


async def test_marks_that_somebody_else_wrote_or_removed_are_made_anew(redis_link: RedisLink) -> None:
    cache = RedisCache(redis_link, "reply", ttl_s=60)
    await kept(cache)
    mark = redis_link.key("cache", "reply", "mark", P)
    for breaking in (
        lambda redis: redis.set(mark, b"not one of ours"),
        lambda redis: redis.delete(mark),
    ):
        await redis_link.run(breaking)
        assert await value(cache) is None
        assert await value(cache) is None
        await kept(cache)
        assert await value(cache) == ENTRY.value


async def test_entries_expire_in_redis(redis_link: RedisLink) -> None:
    cache = RedisCache(redis_link, "reply", ttl_s=0.03)
    await kept(cache)
    name = redis_link.key("cache", "reply", "entry", P, "k")
    assert 0 < await redis_link.run(lambda redis: redis.pttl(name)) <= 30


class Away(RedisLink):
    """A link whose server comes and goes as the test says."""

    gone = False

    async def run(self, use: Any) -> Any:
        if self.gone:
            raise RedisAway
        return await super().run(use)


async def test_a_clearing_that_redis_missed_is_made_up_for_before_it_is_asked(
    redis_url: str, redis_prefix: str
) -> None:
    links = [Away(redis_url, redis_prefix, SystemClock()) for _ in range(3)]
    one, other, third = (TwoLevelCache(in_memory(), RedisCache(link, "reply", ttl_s=60)) for link in links)
    await kept(one)
    await one.aclose()
    links[0].gone = True
    told = await one.clear(P)
    assert told is False
    other.heard(P, told=told)
    third.heard(P, told=told)
    # The node that cleared never comes back; whoever heard it does the work.
    assert await value(other) is None
    assert await value(third) is None
    for link in links:
        await link.aclose()


async def test_what_redis_does_not_take_is_counted_and_held_in_memory_only(
    redis_url: str, redis_prefix: str
) -> None:
    link = Away(redis_url, redis_prefix, SystemClock())
    cache = TwoLevelCache(in_memory(), RedisCache(link, "reply", ttl_s=60))
    generation = await cache.generation(P)
    link.gone = True
    await cache.put(P, "k", ENTRY, generation)
    await cache.aclose()
    assert cache.not_shared == 1
    assert await value(cache) == ENTRY.value
    link.gone = False
    await kept(cache, key="after")
    await cache.aclose()
    assert cache.not_shared == 1
    await link.aclose()


async def test_writes_that_wait_for_redis_are_bounded(
    node: Callable[[], TwoLevelCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspex.providers.redis.two_level.MOST_WAITING", 5)
    cache = node()
    generation = await cache.generation(P)
    for number in range(20):
        await cache.put(P, str(number), ENTRY, generation)
    assert cache.not_shared == 15
    await cache.put(P, "0", CacheEntry(200.0, b"the last one counts"), generation)
    await cache.aclose()
    assert await value(node(), key="0") == b"the last one counts"
    assert [await value(node(), key=str(number)) is not None for number in range(20)] == [True] * 5 + [
        False
    ] * 15


async def test_what_another_node_keeps_is_read_once_for_many_keys(node: Callable[[], TwoLevelCache]) -> None:
    here, there = node(), node()
    for key in ("a", "b"):
        await kept(here, key=key)
    await here.aclose()
    found = await there.get_all(P, ["a", "missing", "b"], since=0)
    assert [one and one.level for one in found] == ["redis", None, "redis"]
    found = await there.get_all(P, ["a", "missing", "b"], since=0)
    assert [one and one.level for one in found] == ["memory", None, "memory"]
    await there.aclose()


async def test_many_keys_are_nothing_while_redis_is_away() -> None:
    link = RedisLink("redis://127.0.0.1:1/0", "test", SystemClock())
    cache = TwoLevelCache(in_memory(), RedisCache(link, "embedding", ttl_s=60))
    await kept(cache, key="a")
    found = await cache.get_all(P, ["a", "b"], since=0)
    assert [one and one.level for one in found] == ["memory", None]
    await cache.aclose()
    await link.aclose()
