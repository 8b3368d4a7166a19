"""Embeddings through the gateway: kept by text, asked in batches, paid and traced like any call."""

import asyncio
import random
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR
from dspex.configuration.caching import CachePolicy
from dspex.configuration.models import EmbeddingSettings, ModelSettings
from dspex.gateway.breakers import Breakers
from dspex.gateway.errors import BreakerOpen, LMServerError, LMUnexpectedError
from dspex.gateway.facts import CacheLooked, LanguageModelCalled
from dspex.gateway.records import CallContext, EmbeddingReply, EmbeddingRequest, Usage
from dspex.gateway.service import LanguageModelGateway
from dspex.gateway.steps.breaking import Breaking
from dspex.gateway.steps.embedding import Vectors
from dspex.gateway.steps.retries import Retries
from dspex.gateway.steps.single_flight import SingleFlight
from dspex.gateway.vectors import KeptVector, batches, numbers, shares
from dspex.kit.errors import Invalid, Missing
from dspex.kit.facts import Facts
from dspex.kit.signals import LocalSignals
from dspex.providers.memory.breakers import MemoryBreakers
from tests.caching import caches_in_memory
from tests.clock import FakeClock
from tests.unit.gateway.calls import request as completion

RATE = 0.001


def vector_of(text: str, dimensions: int | None) -> bytes:
    return struct.pack(f"<{dimensions or 2}f", *[float(len(text))] * (dimensions or 2))


@dataclass
class Model:
    """Answers with a vector of the text's length, or fails as it is told; counts a token a character."""

    failures: deque[BaseException] = field(default_factory=deque)
    asked: list[EmbeddingRequest] = field(default_factory=list)
    held: asyncio.Event | None = None
    usage: bool = True

    async def embed(self, request: EmbeddingRequest) -> EmbeddingReply:
        self.asked.append(request)
        if self.held is not None:
            await self.held.wait()
        if self.failures:
            raise self.failures.popleft()
        tokens = sum(map(len, request.texts))
        return EmbeddingReply(
            tuple(vector_of(text, request.dimensions) for text in request.texts),
            "small-1",
            Usage(tokens, 0, tokens) if self.usage else Usage(),
        )

    async def aclose(self) -> None:
        return


class Prices:
    async def cost(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        return None if usage.input_tokens is None else usage.input_tokens * RATE


class World:
    def __init__(self, **settings: Any) -> None:
        self.model, self.clock, self.facts = Model(), FakeClock(), Facts()
        self.looked: list[CacheLooked] = []
        self.called: list[LanguageModelCalled] = []
        self.facts.subscribe(CacheLooked, self.looked.append)
        self.facts.subscribe(LanguageModelCalled, self.called.append)
        self.cached = caches_in_memory(clock=self.clock, facts=self.facts)
        self.settings = {
            "small": ModelSettings(model="openai/embed", model_type="embedding", **settings),
            "main": ModelSettings(model="openai/gpt-4o-mini"),
        }

        async def at_once(_: float) -> None:
            return

        steps = (
            Vectors(self.cached.vectors, self.clock),
            SingleFlight(self.clock),
            Retries(self.clock, draw=random.random, sleep=at_once),
        )
        self.gateway = LanguageModelGateway(
            {}, self.settings, Prices(), self.clock, self.facts, (), {"small": self.model}, steps
        )
        self.contexts: list[CallContext] = []

    async def embed(self, *texts: str, model: str = "small", **more: Any) -> EmbeddingReply:
        dimensions = more.pop("dimensions", None)
        context = CallContext("e1", "r1", more.pop("principal", LOCAL_OPERATOR), "embeddings", **more)
        self.contexts.append(context)
        return await self.gateway.embed(EmbeddingRequest(model, texts, dimensions), context)

    @property
    def asked(self) -> list[tuple[str, ...]]:
        return [one.texts for one in self.model.asked]

    def lines(self) -> list[tuple[str, int, float | None, float]]:
        """Of the last call: cache status, texts, cost, saved."""
        return [
            (one.cache, len(one.request.texts), one.cost_usd, one.saved_usd)  # type: ignore[union-attr]
            for one in self.contexts[-1].calls
        ]


async def test_vectors_come_in_the_order_of_the_texts_and_repeated_ones_are_asked_once() -> None:
    world = World()
    reply = await world.embed("bb", "a", "bb", "ccc")
    assert [numbers(one)[0] for one in reply.vectors] == [2.0, 1.0, 2.0, 3.0]
    assert world.asked == [("bb", "a", "ccc")]
    assert (reply.model, reply.usage) == ("small-1", Usage(6, 0, 6))
    assert world.lines() == [("miss", 3, 6 * RATE, 0.0)]


async def test_only_what_is_not_kept_is_asked_and_both_are_in_the_trace() -> None:
    world = World()
    await world.embed("a", "bb")
    world.clock.advance(5)
    reply = await world.embed("ccc", "bb")
    assert [numbers(one)[0] for one in reply.vectors] == [3.0, 2.0]
    assert world.asked[1:] == [("ccc",)]
    assert reply.usage == Usage(3, 0, 3)
    assert world.lines() == [("hit", 1, 0.0, pytest.approx(3 * RATE * 3 / 5)), ("miss", 1, 3 * RATE, 0.0)]
    hit = world.contexts[-1].calls[0]
    assert (hit.age_s, hit.provider_model, hit.dialect) == (5.0, "small-1", "embeddings")
    kept = await world.embed("a", "ccc")
    assert (len(world.asked), kept.usage) == (2, Usage(0, 0, 0))


async def test_facts_count_texts() -> None:
    world = World()
    await world.embed("a", "b")
    await world.embed("b", "c")
    told = [(one.outcome, one.level, one.count) for one in world.looked]
    assert told == [
        ("miss", None, 2), ("write", None, 2), ("hit", "memory", 1), ("miss", None, 1), ("write", None, 1),
    ]  # fmt: skip
    assert {one.kind for one in world.looked} == {"embedding"}
    found = world.cached.vectors.statistics()
    assert (found.kind, found.hits, found.misses, found.size.entries) == ("embedding", 1, 3, 3)
    assert [one.call.embeds for one in world.called] == [True, True]


async def test_projects_models_and_dimensions_have_vectors_of_their_own() -> None:
    world = World()
    await world.embed("a")
    await world.embed("a", dimensions=4)
    await world.embed("a", principal=replace(LOCAL_OPERATOR, project="other"))
    assert len(world.asked) == 3
    world.settings["small"] = ModelSettings(model="openai/embed-2", model_type="embedding")
    await world.embed("a")
    world.settings["small"] = ModelSettings(
        model="openai/embed-2", model_type="embedding", api_base="http://127.0.0.1:1/v1"
    )
    await world.embed("a")
    assert len(world.asked) == 5


async def test_a_models_own_dimensions_are_those_of_requests_without() -> None:
    world = World(embedding={"dimensions": 3})
    assert len((await world.embed("a")).vectors[0]) == 12
    assert len((await world.embed("a", dimensions=3)).vectors[0]) == 12
    assert len(world.asked) == 1


@pytest.mark.parametrize(
    ("mode", "asked", "kept"), [("off", 2, 0), ("read_only", 2, 0), ("write_only", 2, 1), ("on", 1, 1)]
)
async def test_policies_say_what_is_read_and_kept(mode: Any, asked: int, kept: int) -> None:
    world = World()
    for _ in range(2):
        # Ages do not matter: a text has the same vector at any time.
        await world.embed("a", cache=CachePolicy(mode, max_age_s=0.0))
        world.clock.advance(60)
    assert (len(world.asked), world.cached.vectors.cache.size().entries) == (asked, kept)


async def test_kept_vectors_end_with_the_time_that_is_set_and_with_clearing() -> None:
    world = World()
    await world.embed("a")
    world.clock.advance(7 * 86_400 + 1)
    await world.embed("a")
    assert len(world.asked) == 2
    await world.cached.caches.clear("default")
    await world.embed("a")
    assert len(world.asked) == 3


async def test_batches_are_bounded_by_count_and_size_and_asked_at_the_same_time() -> None:
    world = World(embedding={"batch_texts": 2})
    world.model.held = asyncio.Event()
    task = asyncio.create_task(world.embed(*"abcdefghij"))
    while len(world.asked) < 4:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert world.asked == [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]
    world.model.held.set()
    reply = await task
    assert world.asked[4:] == [("i", "j")]
    assert len(reply.vectors) == 10
    assert reply.usage == Usage(10, 0, 10)


async def test_what_other_batches_brought_is_kept_when_one_fails() -> None:
    world = World(embedding={"batch_texts": 1}, retries={"attempts": 1})
    world.model.failures.append(LMServerError("down"))
    world.model.held = asyncio.Event()
    task = asyncio.create_task(world.embed(*"abcdefghij"))
    while len(world.asked) < 4:
        await asyncio.sleep(0)
    world.model.held.set()
    with pytest.raises(LMServerError):
        await task
    # Those that were on their way came; no further one was begun.
    assert world.asked == [("a",), ("b",), ("c",), ("d",)]
    assert [one.error is None for one in world.contexts[-1].calls].count(True) == 3
    await world.embed(*"abcdefghij")
    assert len(world.asked) == 4 + 7


async def test_a_failed_attempt_is_tried_again_and_in_the_trace() -> None:
    world = World()
    world.model.failures.append(LMServerError("down"))
    await world.embed("a")
    assert [(one.attempt, one.error is None) for one in world.contexts[-1].calls] == [(1, False), (2, True)]


async def test_a_caller_who_leaves_leaves_nothing_behind() -> None:
    world = World(embedding={"batch_texts": 1})
    world.model.held = asyncio.Event()
    task = asyncio.create_task(world.embed("a", "b", "c"))
    while len(world.asked) < 3:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    errors = [one.error and one.error["kind"] for one in world.contexts[-1].calls]
    assert errors == ["cancelled"] * 3
    world.model.held = None
    assert len((await world.embed("a", "b", "c")).vectors) == 3


async def test_identical_requests_at_the_same_time_are_one_call_and_one_pays() -> None:
    world = World()
    world.model.held = asyncio.Event()
    tasks = [asyncio.create_task(world.embed("a", "bb")) for _ in range(20)]
    while not world.asked:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.model.held.set()
    replies = await asyncio.gather(*tasks)
    assert len(world.asked) == 1
    assert {one.vectors for one in replies} == {replies[0].vectors}
    lines = [context.calls[0] for context in world.contexts]
    assert [one.cache for one in lines].count("hit") == 19
    assert sum(one.cost_usd or 0.0 for one in lines) == 3 * RATE
    found = world.cached.vectors.statistics()
    assert (found.hits, found.misses) == (38, 2)


async def test_vectors_of_another_length_than_kept_ones_are_refused_with_what_to_do() -> None:
    world = World()
    await world.embed("a")
    world.model.embed = changed  # type: ignore[method-assign]
    with pytest.raises(LMUnexpectedError, match="dspex cache clear"):
        await world.embed("a", "b")


async def changed(request: EmbeddingRequest) -> EmbeddingReply:
    return EmbeddingReply(tuple(vector_of(text, 5) for text in request.texts), "small-2", Usage())


async def test_an_unknown_price_or_count_stays_unknown() -> None:
    world = World()
    world.model.usage = False
    reply = await world.embed("a")
    assert reply.usage == Usage()
    assert world.lines() == [("miss", 1, None, 0.0)]
    await world.embed("a")
    assert world.lines() == [("hit", 1, 0.0, 0.0)]


async def test_wrong_requests_are_refused_before_anybody_is_asked() -> None:
    world = World()
    with pytest.raises(Missing, match="small"):
        await world.embed("a", model="large")
    with pytest.raises(Invalid) as wrong:
        await world.embed("a", model="main")
    assert wrong.value.code == "wrong_model_type"
    for texts in ((), ("a",) * 2049):
        with pytest.raises(Invalid) as refused:
            await world.embed(*texts)
        assert refused.value.code == "too_many_texts"
    with pytest.raises(Invalid) as unreadable:
        await world.embed("\ud800")
    assert unreadable.value.code == "not_encodable"
    with pytest.raises(Invalid) as chat:
        await world.gateway.complete(completion("small"), CallContext("e", "r", LOCAL_OPERATOR, "qa"))
    assert chat.value.code == "wrong_model_type"
    assert world.asked == []


@given(st.lists(st.text(max_size=30), unique=True, max_size=40), st.integers(1, 7), st.integers(1024, 1100))
def test_batches_hold_every_text_once_in_order_within_their_bounds(
    texts: list[str], count: int, size: int
) -> None:
    made = list(batches(texts, EmbeddingSettings(batch_texts=count, batch_bytes=size)))
    assert [text for batch in made for text in batch] == texts
    for batch in made:
        assert 1 <= len(batch) <= count
        assert len(batch) == 1 or sum(len(text.encode()) for text in batch) <= size


def test_a_text_that_is_too_large_for_a_batch_goes_alone() -> None:
    made = list(batches(["a", "x" * 5000, "b"], EmbeddingSettings(batch_bytes=1024)))
    assert [len(one) for one in made] == [1, 1, 1]


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
    st.text(max_size=50).filter(lambda text: text.isprintable()),
    st.none() | st.floats(0, 100),
    st.booleans(),
)
def test_kept_vectors_come_back_as_they_were(
    values: list[float], model: str, cost_usd: float | None, simulated: bool
) -> None:
    kept = KeptVector(struct.pack(f"<{len(values)}f", *values), model, cost_usd, simulated)
    assert KeptVector.from_bytes(kept.to_bytes()) == kept


@given(st.binary(max_size=200))
def test_what_others_put_there_is_nothing_or_a_vector(value: bytes) -> None:
    found = KeptVector.from_bytes(value)
    assert found is None or all(abs(one) < 3.5e38 for one in numbers(found.vector))


@pytest.mark.parametrize(
    "value", [b"", b"\x01", b'{"text": "x"}' * 10, KeptVector(b"", "m", None).to_bytes(),
              KeptVector(struct.pack("<f", float("nan")), "m", None).to_bytes(),
              KeptVector(struct.pack("<f", 1.0), "m", -1.0).to_bytes(),
              b"\x02" + KeptVector(struct.pack("<f", 1.0), "m", 1.0).to_bytes()[1:]]
)  # fmt: skip
def test_what_is_no_vector_is_not_read(value: bytes) -> None:
    assert KeptVector.from_bytes(value) is None


@given(st.lists(st.text(max_size=20), unique=True, min_size=1, max_size=20), st.floats(0, 10))
def test_the_shares_of_a_batch_are_its_cost(texts: list[str], cost_usd: float) -> None:
    parts: Mapping[str, float | None] = shares(texts, cost_usd)
    assert sum(one or 0.0 for one in parts.values()) == pytest.approx(cost_usd)
    assert set(shares(texts, None).values()) == {None}


async def test_a_model_that_fails_opens_its_breaker() -> None:
    clock, facts, model = FakeClock(), Facts(), Model()
    breaking = Breaking(Breakers(MemoryBreakers(clock), LocalSignals(), clock, facts))
    settings = {"small": ModelSettings(model="openai/embed", model_type="embedding", breaker={"failures": 2})}
    gateway = LanguageModelGateway({}, settings, Prices(), clock, facts, (), {"small": model}, (breaking,))
    model.failures.extend([LMServerError("down"), LMServerError("down")])
    context = CallContext("e1", "r1", LOCAL_OPERATOR, "embeddings")
    for expected in (LMServerError, LMServerError, BreakerOpen):
        with pytest.raises(expected):
            await gateway.embed(EmbeddingRequest("small", ("a",)), context)
    assert len(model.asked) == 2
