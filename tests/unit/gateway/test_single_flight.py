"""Identical calls at the same time: one is made, and what becomes of it becomes of all."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR, Principal
from dspex.configuration.caching import CachePolicy
from dspex.configuration.models import ModelSettings
from dspex.evaluations.budget import Cap
from dspex.gateway.errors import LMServerError, LMTimeoutError
from dspex.gateway.records import (
    CallContext,
    Dialect,
    LanguageModelReply,
    LanguageModelRequest,
    Message,
    Options,
    Usage,
)
from dspex.gateway.service import LanguageModelGateway
from dspex.gateway.steps.caching import Caching
from dspex.gateway.steps.single_flight import SingleFlight
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Exhausted
from dspex.kit.facts import Facts
from tests.caching import caches_in_memory

PARIS = LanguageModelReply("Paris", "gpt-4o-mini", Usage(10, 2, 12))
Answer = Callable[[], Awaitable[LanguageModelReply]]


class Model:
    """Each call waits until the test answers it."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[LanguageModelReply]] = []

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        self.calls.append(asyncio.get_running_loop().create_future())
        return await self.calls[-1]

    async def aclose(self) -> None: ...


class Price:
    async def cost(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        return 0.25


class World:
    def __init__(self) -> None:
        self.model, self.clock, self.facts = Model(), SystemClock(), Facts()
        self.cached = caches_in_memory(facts=self.facts)
        self.gateway = LanguageModelGateway(
            {"main": self.model},
            {"main": ModelSettings(model="openai/gpt-4o-mini")},
            Price(),
            self.clock,
            self.facts,
            (Caching(self.cached.replies, self.clock), SingleFlight(self.clock)),
        )
        self.contexts: list[CallContext] = []

    def ask(self, text: str = "Where?", **context: Any) -> "asyncio.Task[LanguageModelReply]":
        given: dict[str, Any] = {"principal": LOCAL_OPERATOR, **context}
        within_s = given.pop("within_s", None)
        if within_s is not None:
            given["deadline"] = self.clock.monotonic() + within_s
        call = CallContext("e", "r", program="qa", adapter="chat", **given)
        self.contexts.append(call)
        request = LanguageModelRequest("main", (Message("user", text),), Options(), Dialect())
        return asyncio.create_task(self.gateway.complete(request, call))

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


async def test_a_hundred_identical_calls_are_one() -> None:
    world = World()
    tasks = [world.ask() for _ in range(100)]
    other = world.ask("When?")
    await world.settle()
    assert len(world.model.calls) == 2
    for call in world.model.calls:
        call.set_result(PARIS)
    replies = await asyncio.gather(*tasks, other)
    assert {one.text for one in replies} == {"Paris"}
    lines = [context.calls for context in world.contexts[:100]]
    assert all(len(one) == 1 for one in lines)
    assert [one[0].cache for one in lines].count("hit") == 99
    assert sum(one[0].saved_usd for one in lines) == 99 * 0.25
    assert sum(one[0].cost_usd or 0 for one in lines) == 0.25
    hit = next(one[0] for one in lines if one[0].cache == "hit")
    assert (hit.usage, hit.age_s, hit.reply) == (Usage(0, 0, 0), 0.0, "Paris")
    found, *_ = world.cached.caches.statistics()
    assert (found.hits, found.misses) == (99, 2)
    assert (await world.ask()).text == "Paris"
    assert len(world.model.calls) == 2


async def test_when_it_fails_all_get_the_error_once_and_the_next_tries_again() -> None:
    world = World()
    tasks = [world.ask() for _ in range(20)]
    await world.settle()
    world.model.calls[0].set_exception(LMServerError("broken", status=500, retry_after=3))
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(one) for one in errors} == {LMServerError}
    assert {(one.code, one.status, one.retry_after, one.model) for one in errors} == {  # type: ignore[union-attr]
        ("lm_server_error", 500, 3, "main")
    }
    assert len({id(one) for one in errors}) == 20
    assert len(world.model.calls) == 1
    again = world.ask()
    await world.settle()
    world.model.calls[1].set_result(PARIS)
    assert (await again).text == "Paris"


async def test_a_cancelled_leader_hands_over() -> None:
    world = World()
    leader, *followers = [world.ask() for _ in range(5)]
    await world.settle()
    leader.cancel()
    await world.settle()
    assert leader.cancelled()
    assert len(world.model.calls) == 2
    followers[0].cancel()
    await world.settle()
    assert len(world.model.calls) == 3
    world.model.calls[2].set_result(PARIS)
    replies = await asyncio.gather(*followers[1:])
    assert [one.text for one in replies] == ["Paris"] * 3


async def test_a_cancelled_follower_leaves_quietly() -> None:
    world = World()
    tasks = [world.ask() for _ in range(5)]
    await world.settle()
    tasks[3].cancel()
    await world.settle()
    assert tasks[3].cancelled()
    world.model.calls[0].set_result(PARIS)
    rest = await asyncio.gather(*(task for task in tasks if task is not tasks[3]))
    assert [one.text for one in rest] == ["Paris"] * 4
    assert len(world.model.calls) == 1


async def test_a_follower_keeps_its_own_deadline() -> None:
    world = World()
    leader, hurried = world.ask(), world.ask(within_s=0.03)
    with pytest.raises(LMTimeoutError, match="identical call"):
        await hurried
    world.model.calls[0].set_result(PARIS)
    assert (await leader).text == "Paris"


async def test_a_leader_whose_own_time_is_over_hands_over() -> None:
    world = World()
    hurried, patient = world.ask(within_s=0.03), world.ask(within_s=30)
    with pytest.raises(LMTimeoutError):
        await hurried
    await world.settle()
    assert len(world.model.calls) == 2
    world.model.calls[1].set_result(PARIS)
    assert (await patient).text == "Paris"


async def test_a_limit_of_the_leader_alone_is_no_one_elses() -> None:
    world = World()
    key: Principal = replace(LOCAL_OPERATOR, key_id="k1")
    leader, same, other = world.ask(principal=key), world.ask(principal=key), world.ask()
    await world.settle()
    world.model.calls[0].set_exception(Exhausted("your budget is spent", code="x"))
    assert [type(one) for one in await asyncio.gather(leader, same, return_exceptions=True)] == [
        Exhausted
    ] * 2
    await world.settle()
    world.model.calls[1].set_result(PARIS)
    assert (await other).text == "Paris"


async def test_what_one_piece_of_work_may_cost_is_no_limit_of_another() -> None:
    world = World()
    one = world.ask(cap=Cap(0.01, 0.0))
    await world.settle()
    other, third = world.ask(), world.ask(cap=Cap(0.01, 0.0))
    await world.settle()
    world.model.calls[0].set_exception(Exhausted("Nothing is left.", code="evaluation_budget"))
    with pytest.raises(Exhausted):
        await one
    await world.settle()
    world.model.calls[1].set_result(PARIS)
    assert [(await task).text for task in (other, third)] == ["Paris"] * 2
    assert len(world.model.calls) == 2


async def test_nobody_waits_for_a_call_of_another_lane() -> None:
    world = World()
    waits = world.ask(lane="optimization")
    await world.settle()
    asks = world.ask()
    await world.settle()
    world.model.calls[1].set_result(PARIS)
    assert (await asks).text == "Paris"
    assert not waits.done()
    world.model.calls[0].set_result(PARIS)
    await waits


async def test_a_defect_is_everybodys_own() -> None:
    world = World()
    tasks = [world.ask() for _ in range(3)]
    for number in range(3):
        await world.settle()
        world.model.calls[number].set_exception(RuntimeError("a defect"))
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in errors] == [RuntimeError] * 3


@pytest.mark.parametrize("mode", ["off", "write_only"])
async def test_who_does_not_read_does_not_follow(mode: Any) -> None:
    world = World()
    tasks = [world.ask(cache=CachePolicy(mode)) for _ in range(3)]
    await world.settle()
    assert len(world.model.calls) == 3
    for call in world.model.calls:
        call.set_result(PARIS)
    await asyncio.gather(*tasks)


async def test_projects_do_not_fly_together() -> None:
    world = World()
    tasks = [world.ask(principal=replace(LOCAL_OPERATOR, project=name)) for name in ("a", "b")]
    await world.settle()
    assert len(world.model.calls) == 2
    for call in world.model.calls:
        call.set_result(PARIS)
    await asyncio.gather(*tasks)


async def test_who_has_longer_is_not_content_with_the_haste_of_the_leader() -> None:
    world = World()
    leader, follower = world.ask(within_s=2), world.ask(within_s=30)
    together = world.ask(within_s=2)
    await world.settle()
    world.model.calls[0].set_exception(LMServerError("busy for 5 s", retry_after=5))
    await world.settle()
    assert isinstance(leader.exception(), LMServerError)
    assert isinstance(together.exception(), LMServerError)
    world.model.calls[1].set_result(PARIS)
    assert (await follower).text == "Paris"
