"""Rate limits around a call: of its key, session and program, and of the model for each attempt."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR
from dspex.configuration.settings import RateLimits
from dspex.configuration.spending import RateLimit
from dspex.gateway.errors import LMRateLimitError, LMServerError
from dspex.gateway.pipeline import Passage, Proceed
from dspex.gateway.records import LanguageModelReply, Usage
from dspex.gateway.steps.rate_limits import CallerLimits, ModelLimits
from dspex.kit.errors import Exhausted
from dspex.providers.memory.rate_limiter import MemoryRateLimiter
from tests.clock import FakeClock
from tests.unit.gateway.scripted import CALLER, REPLY, Model, PerToken, context, gateway, request

ONE = RateLimit(requests_per_minute=1)


class Counting(MemoryRateLimiter):
    asked = 0

    async def reserve(self, charges: Any) -> Any:
        self.asked += 1
        return await super().reserve(charges)


class Bench:
    def __init__(self, everybody: RateLimits | None = None, model: RateLimit | None = None) -> None:
        self.clock = FakeClock()
        self.limiter = Counting(self.clock)
        self.model = Model()
        steps = CallerLimits(self.limiter, everybody or RateLimits()), ModelLimits(self.limiter)
        limits = RateLimit() if model is None else model
        self.gateway = gateway(self.model, PerToken(), self.clock, *steps, rate_limit=limits)

    async def ask(self, **more: Any) -> LanguageModelReply:
        return await self.gateway.complete(request(), context(**more))


async def test_a_call_without_limits_asks_nobody() -> None:
    bench = Bench()
    assert await bench.ask(session_id="s") is REPLY
    assert bench.limiter.asked == 0


@pytest.mark.parametrize(
    ("everybody", "limited", "free", "named"),
    [
        (RateLimits(), {"rate_limit": ONE}, {"rate_limit": None}, "program 'qa'"),
        (RateLimits(session=ONE), {"session_id": "s"}, {"session_id": "t"}, "session 's'"),
        (RateLimits(key=ONE), {}, {"principal": LOCAL_OPERATOR}, "key 'k1'"),
        (
            RateLimits(),
            {"principal": replace(CALLER, rate_limit=ONE)},
            {"principal": replace(CALLER, key_id="k2", rate_limit=ONE)},
            "key 'k1'",
        ),
    ],
    ids=["program", "session", "every key", "one key"],
)
async def test_a_limit_holds_for_whom_it_is(
    everybody: RateLimits, limited: dict[str, Any], free: dict[str, Any], named: str
) -> None:
    bench = Bench(everybody)
    assert await bench.ask(**limited) is REPLY
    with pytest.raises(Exhausted) as refused:
        await bench.ask(**limited)
    error = refused.value
    assert (error.code, error.kind) == ("rate_limited", "exhausted")
    assert named in error.message
    assert "1 requests a minute; the last minute has 1" in error.message
    assert error.retry_after is not None
    assert bench.model.asked == 1
    assert await bench.ask(**free) is REPLY
    bench.clock.advance(error.retry_after)
    assert await bench.ask(**limited) is REPLY


async def test_a_keys_own_limit_wins_over_everybodys() -> None:
    bench = Bench(RateLimits(key=ONE))
    roomy = replace(CALLER, rate_limit=RateLimit(requests_per_minute=3))
    for _ in range(3):
        await bench.ask(principal=roomy)
    with pytest.raises(Exhausted):
        await bench.ask(principal=roomy)


async def test_a_key_that_acts_in_many_projects_has_one_limit() -> None:
    bench = Bench()
    admin = replace(CALLER, rate_limit=ONE, home="ours")
    await bench.ask(principal=admin)
    with pytest.raises(Exhausted):
        await bench.ask(principal=replace(admin, project="other"))


async def test_all_limits_of_a_call_are_asked_at_once() -> None:
    bench = Bench(RateLimits(session=RateLimit(5, 10_000), key=RateLimit(5, 10_000)))
    await bench.ask(session_id="s", rate_limit=RateLimit(5, 10_000))
    assert bench.limiter.asked == 1


async def test_tokens_are_reserved_by_an_estimate_and_settled_by_what_was_used() -> None:
    bench, limit = Bench(), RateLimit(tokens_per_minute=200)
    # 110 are reserved for each, and 12 used.
    for _ in range(8):
        await bench.ask(rate_limit=limit)
    with pytest.raises(
        Exhausted, match="tokens a minute; the last minute has 96, and this call would add 110"
    ):
        await bench.ask(rate_limit=limit)


async def test_what_a_program_says_beside_its_messages_counts_as_well() -> None:
    bench, more = Bench(), {"rate_limit": RateLimit(tokens_per_minute=200)}
    hidden = {"messages": [{"role": "user", "parts": [{"type": "text", "text": "x" * 600}]}]}
    await bench.ask(**more)
    with pytest.raises(Exhausted, match="this call would add 200"):
        await bench.gateway.complete(replace(request(""), canonical=hidden), context(**more))


async def test_a_call_larger_than_the_limit_passes_when_the_minute_is_empty() -> None:
    bench, limit = Bench(), RateLimit(tokens_per_minute=50)
    assert await bench.ask(rate_limit=limit) is REPLY
    with pytest.raises(Exhausted) as refused:
        await bench.ask(rate_limit=limit)
    bench.clock.advance(refused.value.retry_after or 0)
    assert await bench.ask(rate_limit=limit) is REPLY


async def test_failed_and_cancelled_calls_use_no_tokens() -> None:
    bench, limit = Bench(), RateLimit(tokens_per_minute=120)
    for _ in range(5):
        bench.model.outcomes.append(LMServerError("It failed."))
        with pytest.raises(LMServerError):
            await bench.ask(rate_limit=limit)
    bench.model.outcomes.append(None)
    call = asyncio.create_task(bench.ask(rate_limit=limit))
    await bench.model.waiting.wait()
    with pytest.raises(Exhausted):
        await bench.ask(rate_limit=limit)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await bench.ask(rate_limit=limit) is REPLY


async def test_an_answer_that_does_not_say_its_tokens_uses_what_was_reserved() -> None:
    bench, limit = Bench(), RateLimit(tokens_per_minute=200)
    bench.model.outcomes.extend([replace(REPLY, usage=Usage()), replace(REPLY, usage=Usage(input_tokens=10))])
    await bench.ask(rate_limit=limit)
    with pytest.raises(Exhausted, match="has 110"):
        await bench.ask(rate_limit=limit)
    bench.clock.advance(62)
    await bench.ask(rate_limit=limit)
    with pytest.raises(Exhausted, match="has 10,"):
        await bench.ask(rate_limit=RateLimit(tokens_per_minute=110))


async def test_a_model_without_room_is_one_that_can_not_answer_now() -> None:
    bench = Bench(model=ONE)
    assert await bench.ask() is REPLY
    with pytest.raises(LMRateLimitError) as refused:
        await bench.ask()
    error = refused.value
    assert (error.code, error.kind, error.model, error.retryable) == (
        "rate_limited",
        "exhausted",
        "main",
        True,
    )
    assert "model 'main'" in error.message
    # It is everybody's: other keys and projects count as well.
    with pytest.raises(LMRateLimitError):
        await bench.ask(principal=replace(LOCAL_OPERATOR, project="other"))
    assert bench.model.asked == 1
    bench.clock.advance(error.retry_after or 0)
    assert await bench.ask() is REPLY


async def test_a_call_that_its_model_has_no_room_for_does_not_count_for_its_caller() -> None:
    bench, limit = Bench(model=ONE), RateLimit(requests_per_minute=2)
    await bench.ask(rate_limit=limit)
    for _ in range(3):
        with pytest.raises(LMRateLimitError):
            await bench.ask(rate_limit=limit)
    bench.clock.advance(30)
    await bench.gateway.complete(replace(request(), model="other"), context(rate_limit=limit))


async def test_each_attempt_is_asked_of_the_model_and_each_call_of_its_caller() -> None:
    class Twice:
        """Stands for retries."""

        async def __call__(self, passage: Passage, *, proceed: Proceed) -> LanguageModelReply:
            await proceed(passage)
            return await proceed(replace(passage, attempt=2))

    clock = FakeClock()
    limiter = MemoryRateLimiter(clock)
    steps = CallerLimits(limiter, RateLimits()), Twice(), ModelLimits(limiter)
    limits = RateLimit(requests_per_minute=4)
    twice = gateway(Model(), PerToken(), clock, *steps, rate_limit=limits)
    two = RateLimit(requests_per_minute=2)
    call = context(rate_limit=two)
    for _ in range(2):
        await twice.complete(request(), call)
    assert [line.attempt for line in call.calls] == [1, 2, 1, 2]
    with pytest.raises(Exhausted):
        await twice.complete(request(), call)
    with pytest.raises(LMRateLimitError):
        await twice.complete(request(), context())
