"""The caching step over a scripted model: what is kept, for whom, how long, and what a hit looks like."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from dspex.access.records import LOCAL_OPERATOR
from dspex.application.caches import OpenCaches, memory_cache
from dspex.configuration.caching import CachePolicy, CacheSettings
from dspex.configuration.models import ModelSettings
from dspex.gateway.errors import LMAuthError, LMInvalidRequestError, LMRateLimitError, LMServerError
from dspex.gateway.facts import CacheLooked
from dspex.gateway.pipeline import Passage
from dspex.gateway.records import (
    CacheEntry,
    CallContext,
    Dialect,
    LanguageModelReply,
    LanguageModelRequest,
    Message,
    Options,
    Usage,
)
from dspex.gateway.service import LanguageModelGateway
from dspex.gateway.steps.caching import Caching, KeptReply, reply_key
from dspex.kit.errors import DspexError, Exhausted, Unavailable
from dspex.kit.facts import Facts
from tests.caching import caches_in_memory
from tests.clock import FakeClock

FULL = LanguageModelReply("Paris", "gpt-4o-mini-2024", Usage(10, 2, 12), simulated=True)
REQUEST = LanguageModelRequest("main", (Message("user", "Where?"),), Options(), Dialect(model="gpt-4o-mini"))
OFF, READ_ONLY, WRITE_ONLY = (CachePolicy(mode) for mode in ("off", "read_only", "write_only"))


@dataclass
class Model:
    outcomes: list[LanguageModelReply | Exception] = field(default_factory=lambda: [FULL])
    calls: int = 0

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        outcome = self.outcomes[min(self.calls, len(self.outcomes) - 1)]
        self.calls += 1
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def aclose(self) -> None: ...


@dataclass
class Price:
    usd: float | None = 0.25

    async def cost(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        return self.usd


class World:
    def __init__(
        self,
        *outcomes: LanguageModelReply | Exception,
        bounds: CacheSettings | None = None,
        usd: float | None = 0.25,
        cached: OpenCaches | None = None,
        settings: ModelSettings | None = None,
        clock: FakeClock | None = None,
    ) -> None:
        self.clock, self.facts, self.looked = clock or FakeClock(), Facts(), list[CacheLooked]()
        self.facts.subscribe(CacheLooked, self.looked.append)
        self.model = Model(list(outcomes) or [FULL])
        self.bounds = bounds or CacheSettings()
        self.memory = memory_cache(self.bounds)
        self.cached = cached or caches_in_memory(self.bounds, self.clock, self.facts, replies=self.memory)
        self.gateway = LanguageModelGateway(
            {"main": self.model},
            {"main": settings or ModelSettings(model="openai/gpt-4o-mini")},
            Price(usd),
            self.clock,
            self.facts,
            (Caching(self.cached.replies, self.clock),),
        )

    async def ask(
        self,
        request: LanguageModelRequest = REQUEST,
        policy: CachePolicy | None = None,
        project: str = "default",
    ) -> tuple[LanguageModelReply, CallContext]:
        principal = replace(LOCAL_OPERATOR, project=project)
        call = CallContext("e", "r", principal, "qa", adapter="chat", cache=policy or CachePolicy())
        return await self.gateway.complete(request, call), call


async def test_the_second_call_is_answered_from_the_cache_and_costs_nothing() -> None:
    world = World()
    first, _ = await world.ask()
    world.clock.advance(90)
    again, call = await world.ask()
    assert world.model.calls == 1
    assert first is FULL
    assert again == replace(FULL, usage=Usage(0, 0, 0))
    (line,) = call.calls
    assert (line.cache, line.saved_usd, line.cost_usd, line.age_s, line.stale) == (
        "hit",
        0.25,
        0.0,
        90,
        False,
    )
    assert (line.latency_ms, line.usage, line.reply, line.simulated) == (0, Usage(0, 0, 0), "Paris", True)
    assert (line.model, line.provider_model, line.adapter) == ("main", "gpt-4o-mini-2024", "chat")
    assert [(one.kind, one.outcome, one.level) for one in world.looked] == [
        ("reply", "miss", None),
        ("reply", "write", None),
        ("reply", "hit", "memory"),
    ]


async def test_an_unknown_price_saves_nothing_known() -> None:
    world = World(usd=None)
    await world.ask()
    _, call = await world.ask()
    assert (call.calls[0].saved_usd, call.calls[0].cost_usd) == (0.0, 0.0)


DIFFERENT: dict[str, LanguageModelRequest] = {
    "message": replace(REQUEST, messages=(Message("user", "When?"),)),
    "role": replace(REQUEST, messages=(Message("system", "Where?"),)),
    "split": replace(REQUEST, messages=(Message("user", "Whe"), Message("user", "re?"))),
    "empty message": replace(REQUEST, messages=(Message("user", "Where?"), Message("user", ""))),
    "temperature": replace(REQUEST, options=Options(temperature=0.0)),
    "integer or float": replace(REQUEST, options=Options(temperature=0)),
    "max_tokens": replace(REQUEST, options=Options(max_tokens=0)),
    "stop": replace(REQUEST, options=Options(stop=("a", "b"))),
    "stop joined": replace(REQUEST, options=Options(stop=("ab", ""))),
    "format": replace(REQUEST, options=Options(response_format={"type": "json_object"})),
    "extension": replace(REQUEST, options=Options(extensions={"min_p": 0.1})),
    "model of the dialect": replace(REQUEST, dialect=Dialect(model="gpt-4o")),
    "role of instructions": replace(REQUEST, dialect=replace(REQUEST.dialect, instruction_role="developer")),
    "rollout": replace(REQUEST, rollout_id=0),
    "another rollout": replace(REQUEST, rollout_id=1),
}


@pytest.mark.parametrize("other", DIFFERENT.values(), ids=DIFFERENT)
async def test_whatever_shapes_an_answer_sets_calls_apart(other: LanguageModelRequest) -> None:
    world = World()
    await world.ask()
    await world.ask(other)
    assert world.model.calls == 2


async def test_no_two_of_these_have_the_same_key() -> None:
    def key(request: LanguageModelRequest) -> str:
        call = CallContext("e", "r", LOCAL_OPERATOR, "qa")
        client: Any = None
        return reply_key(Passage(request, call, ModelSettings(model="openai/gpt-4o-mini"), client, client))

    keys = [key(one) for one in DIFFERENT.values()]
    # 0 and 0.0 are sent as they are written.
    assert len(set(keys)) == len(keys)


async def test_projects_share_nothing() -> None:
    world = World()
    await world.ask(project="a")
    await world.ask(project="b")
    assert world.model.calls == 2


async def test_an_alias_that_means_something_else_now_is_asked_again() -> None:
    first = World()
    await first.ask()
    for settings in (
        ModelSettings(model="openai/gpt-4o-mini", api_base="http://127.0.0.1:9/v1"),
        ModelSettings(model="openai/gpt-4o"),
    ):
        world = World(cached=first.cached, settings=settings, clock=first.clock)
        await world.ask()
        assert world.model.calls == 1


@pytest.mark.parametrize(
    "reply",
    [
        replace(FULL, text=None),
        replace(FULL, text=""),
        replace(FULL, finish_reason="length"),
        replace(FULL, finish_reason="content_filter"),
        replace(FULL, finish_reason="tool_call"),
    ],
)
async def test_what_is_no_full_answer_is_not_kept(reply: LanguageModelReply) -> None:
    world = World(reply, FULL)
    await world.ask()
    again, _ = await world.ask()
    assert again == FULL and world.model.calls == 2


async def test_errors_are_not_kept() -> None:
    world = World(LMServerError("broken"), FULL)
    with pytest.raises(LMServerError):
        await world.ask()
    again, call = await world.ask()
    assert again == FULL
    assert [one.cache for one in call.calls] == ["miss"]


@pytest.mark.parametrize(
    ("first", "second", "calls"),
    [
        (OFF, None, 2),
        (None, OFF, 2),
        (READ_ONLY, None, 2),
        (None, READ_ONLY, 1),
        (WRITE_ONLY, WRITE_ONLY, 2),
        (WRITE_ONLY, READ_ONLY, 1),
    ],
)
async def test_policies(first: CachePolicy | None, second: CachePolicy | None, calls: int) -> None:
    world = World()
    await world.ask(policy=first)
    await world.ask(policy=second)
    assert world.model.calls == calls


async def test_answers_older_than_wanted_are_asked_for_anew_and_replaced() -> None:
    world = World(FULL, replace(FULL, text="Rome"))
    young = CachePolicy(max_age_s=60)
    await world.ask()
    world.clock.advance(60)
    assert (await world.ask(policy=young))[0].text == "Paris"
    world.clock.advance(1)
    assert (await world.ask(policy=young))[0].text == "Rome"
    assert (await world.ask())[0].text == "Rome"


async def test_nothing_outlives_its_time() -> None:
    world = World(bounds=CacheSettings(ttl_s=100))
    await world.ask()
    world.clock.advance(101)
    await world.ask()
    assert world.model.calls == 2


@pytest.mark.parametrize(("jump", "calls"), [(-86_400.0, 1), (-1.0, 1), (50.0, 1), (86_400.0, 2)])
async def test_a_clock_that_jumps_makes_misses_at_worst(jump: float, calls: int) -> None:
    world = World(bounds=CacheSettings(ttl_s=1000))
    await world.ask()
    world.clock.jump(jump)
    _, call = await world.ask(policy=CachePolicy(max_age_s=60))
    assert world.model.calls == calls
    if calls == 1:
        assert call.calls[0].age_s == max(jump, 0)


STALE = CachePolicy(max_age_s=60, stale_if_error_s=600)
TROUBLE = [LMServerError("down"), LMRateLimitError("full"), LMAuthError("key"), Unavailable("open", code="x")]


@pytest.mark.parametrize("error", TROUBLE, ids=lambda error: type(error).__name__)
async def test_an_older_answer_makes_up_for_a_model_that_can_not_be_reached(error: DspexError) -> None:
    world = World(FULL, error)
    await world.ask()
    world.clock.advance(100)
    reply, call = await world.ask(policy=STALE)
    assert reply.text == "Paris"
    line = call.calls[-1]
    assert (line.cache, line.stale, line.age_s) == ("hit", True, 100)
    assert call.calls[0].error is not None
    assert [one.outcome for one in world.looked][-2:] == ["miss", "stale"]
    world.clock.advance(600)
    with pytest.raises(type(error)):
        await world.ask(policy=STALE)


@pytest.mark.parametrize("error", [LMInvalidRequestError("no"), Exhausted("your budget", code="x")])
async def test_no_older_answer_for_what_is_wrong_with_the_request(error: DspexError) -> None:
    world = World(FULL, error)
    await world.ask()
    world.clock.advance(100)
    with pytest.raises(type(error)):
        await world.ask(policy=STALE)


async def test_without_a_policy_for_it_trouble_is_told() -> None:
    world = World(FULL, LMServerError("down"))
    await world.ask()
    world.clock.advance(100)
    with pytest.raises(LMServerError):
        await world.ask(policy=CachePolicy(max_age_s=60))


async def test_entries_over_the_limit_are_not_kept() -> None:
    world = World(replace(FULL, text="x" * 2000), bounds=CacheSettings(entry_bytes=1024))
    await world.ask()
    await world.ask()
    assert world.model.calls == 2
    assert world.memory.size().entries == 0


async def test_an_answer_from_another_model_is_given_but_not_kept() -> None:
    world = World()

    class Fallback:
        async def __call__(self, passage: Passage, *, proceed: Callable[..., Any]) -> LanguageModelReply:
            reply = await proceed(passage)
            passage.context.calls[-1] = replace(passage.context.calls[-1], model="other")
            return reply  # type: ignore[no-any-return]

    world.gateway = LanguageModelGateway(
        {"main": world.model},
        {"main": ModelSettings(model="openai/gpt-4o-mini")},
        Price(),
        world.clock,
        world.facts,
        (Caching(world.cached.replies, world.clock), Fallback()),
    )
    await world.ask()
    await world.ask()
    assert world.model.calls == 2


GARBAGE: Sequence[bytes] = (
    b"",
    b"\xff\xfe",
    b"[" * 100_000,
    b"null",
    b"{}",
    b'{"text": "Paris"}',
    b'{"text": NaN, "model": "m", "usage": {}, "cost_usd": NaN, "refusal": null, "simulated": false}',
)


@pytest.mark.parametrize("value", GARBAGE, ids=range(len(GARBAGE)))
async def test_an_entry_that_nobody_of_us_wrote_is_a_miss_and_is_overwritten(value: bytes) -> None:
    world = World()
    _, call = await world.ask()
    (key,) = call.cached
    generation = await world.memory.generation("default")
    await world.memory.put("default", key, CacheEntry(world.clock.now().timestamp(), value), generation)
    assert (await world.ask())[0].text == "Paris"
    assert world.model.calls == 2
    await world.ask()
    assert world.model.calls == 2


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("text", 7),
        ("text", ""),
        ("cost_usd", -1),
        ("cost_usd", math.inf),
        ("cost_usd", math.nan),
        ("cost_usd", "0"),
        ("simulated", 1),
        ("stranger", None),
    ],
)
def test_a_kept_reply_of_the_wrong_form_is_none(member: str, value: Any) -> None:
    good = asdict(KeptReply("Paris", "m", {"input_tokens": 1}, 0.5))
    assert KeptReply.from_bytes(json.dumps(good).encode()) is not None
    assert KeptReply.from_bytes(json.dumps(good | {member: value}).encode()) is None


@given(st.text(st.characters(exclude_categories=[]), min_size=1))
async def test_any_text_comes_back_as_it_was(text: str) -> None:
    world = World(replace(FULL, text=text))
    await world.ask()
    assert (await world.ask())[0].text == text
    assert world.model.calls == 1


async def test_a_clearing_empties_it_and_what_was_begun_before_is_not_kept() -> None:
    world = World()
    await world.ask()
    await world.cached.caches.clear("default")
    await world.ask()
    assert world.model.calls == 2

    class Clearing(Model):
        async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
            await world.cached.caches.clear(None)
            return await super().complete(request)

    slow = Clearing()
    world.gateway = LanguageModelGateway(
        {"main": slow},
        {"main": ModelSettings(model="openai/gpt-4o-mini")},
        Price(),
        world.clock,
        world.facts,
        (Caching(world.cached.replies, world.clock),),
    )
    await world.cached.caches.clear(None)
    await world.ask()
    await world.ask()
    assert slow.calls == 2


async def test_it_counts_hits_misses_and_stale_answers() -> None:
    world = World(FULL, LMServerError("down"))
    await world.ask()
    await world.ask()
    world.clock.advance(100)
    await world.ask(policy=STALE)
    found, *_ = world.cached.caches.statistics()
    assert (found.kind, found.hits, found.misses, found.stale) == ("reply", 1, 2, 1)
    assert (found.size.entries, found.size.redis) == (1, "off")
