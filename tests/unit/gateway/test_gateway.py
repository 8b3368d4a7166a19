"""The gateway's pipeline: resolve, call, cost, trace."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from dspex.access.records import LOCAL_OPERATOR
from dspex.configuration.models import ModelSettings
from dspex.gateway.errors import LMRateLimitError, LMTimeoutError
from dspex.gateway.facts import LanguageModelCalled
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
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Missing
from dspex.kit.facts import Facts

REPLY = LanguageModelReply("Paris", "gpt-4o-mini-2024", Usage(10, 2, 12), simulated=True)


@dataclass
class Client:
    """Answers, raises, or waits for ever."""

    outcome: LanguageModelReply | Exception | None = REPLY
    closed: bool = False
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        self.asked.set()
        if self.outcome is None:
            await asyncio.Event().wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class Price:
    usd: float | None = 0.25
    waits: asyncio.Event | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def cost(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        self.asked.set()
        if self.waits is not None:
            await self.waits.wait()
        return self.usd


def gateway(
    client: Client,
    price: Price | None = None,
    timeout_s: float = 30,
    heard: Callable[[LanguageModelCalled], None] = print,
) -> LanguageModelGateway:
    facts = Facts()
    facts.subscribe(LanguageModelCalled, heard)
    settings = {"main": ModelSettings(model="openai/gpt-4o-mini", timeout_s=timeout_s)}
    return LanguageModelGateway({"main": client}, settings, price or Price(), SystemClock(), facts)


def request(alias: str = "main") -> LanguageModelRequest:
    return LanguageModelRequest(alias, (Message("user", "Where?"),), Options(), Dialect(model="gpt-4o-mini"))


def context(deadline: float | None = None) -> CallContext:
    return CallContext("e1", "r1", LOCAL_OPERATOR, "qa", deadline=deadline, adapter="chat")


async def test_a_call_is_answered_priced_traced_and_announced() -> None:
    heard: list[LanguageModelCalled] = []
    call = context()
    assert await gateway(Client(), heard=heard.append).complete(request(), call) is REPLY
    (line,) = call.calls
    assert (line.model, line.provider_model, line.dialect) == ("main", "gpt-4o-mini-2024", "openai-chat")
    assert (line.adapter, line.attempt, line.cost_usd, line.reply) == ("chat", 1, 0.25, "Paris")
    assert line.simulated
    assert line.error is None
    assert line.latency_ms >= 0
    (fact,) = heard
    assert (fact.context, fact.call, fact.reply, fact.trace) == (call, line, REPLY, None)


async def test_a_stored_line_is_plain_json() -> None:
    call = context()
    await gateway(Client()).complete(request(), call)
    stored = call.calls[0].to_json()
    assert stored["usage"] == {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
    assert stored["started_at"].endswith("Z")
    assert stored["cost_usd"] == 0.25


async def test_a_failed_call_is_traced_and_raised_with_the_models_name() -> None:
    failure = LMRateLimitError("Too many requests.", status=429, retry_after=3)
    call = context()
    with pytest.raises(LMRateLimitError) as raised:
        await gateway(Client(failure)).complete(request(), call)
    assert raised.value.model == "main"
    (line,) = call.calls
    assert line.error == {
        "kind": "exhausted",
        "code": "lm_rate_limited",
        "type": "LMRateLimitError",
        "message": "Too many requests.",
    }
    assert (line.provider_model, line.cost_usd, line.reply) == ("gpt-4o-mini", None, None)


async def test_a_slow_model_is_cut_off_at_its_own_limit() -> None:
    call = context()
    with pytest.raises(LMTimeoutError, match="timeout_s"):
        await gateway(Client(None), timeout_s=0.01).complete(request(), call)
    assert call.calls[0].error is not None
    assert call.calls[0].error["type"] == "LMTimeoutError"


async def test_the_requests_deadline_counts_when_it_is_sooner() -> None:
    call = context(SystemClock().monotonic() + 0.3)
    with pytest.raises(LMTimeoutError, match="the time left"):
        await gateway(Client(None)).complete(request(), call)


@pytest.mark.parametrize(
    ("timeout_s", "left_s", "to_blame"), [(0.01, 9, True), (0.5, 0.4, True), (9, 0.1, False)]
)
async def test_a_model_is_to_blame_when_it_had_its_time(
    timeout_s: float, left_s: float, to_blame: bool
) -> None:
    with pytest.raises(LMTimeoutError) as raised:
        slow = gateway(Client(None), timeout_s=timeout_s)
        await slow.complete(request(), context(SystemClock().monotonic() + left_s))
    assert raised.value.trips is to_blame


async def test_no_call_is_made_after_the_deadline() -> None:
    client = Client()
    with pytest.raises(LMTimeoutError):
        await gateway(client).complete(request(), context(SystemClock().monotonic() - 1))
    assert not client.asked.is_set()


async def test_a_cancelled_call_is_traced() -> None:
    client, call = Client(None), context()
    task = asyncio.create_task(gateway(client).complete(request(), call))
    await client.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.calls[0].error is not None
    assert call.calls[0].error["kind"] == "cancelled"


async def test_an_answer_is_traced_though_the_caller_leaves_before_its_price_is_known() -> None:
    price, call = Price(waits=asyncio.Event()), context()
    task = asyncio.create_task(gateway(Client(), price).complete(request(), call))
    await price.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (line,) = call.calls
    assert (line.reply, line.cost_usd, line.error) == ("Paris", None, None)


async def test_an_unknown_alias_is_missing_and_the_known_ones_are_named() -> None:
    call = context()
    with pytest.raises(Missing, match="main") as raised:
        await gateway(Client()).complete(request("other"), call)
    assert raised.value.code == "unknown_model"
    assert call.calls == []


async def test_closing_closes_the_clients() -> None:
    client = Client()
    await gateway(client).aclose()
    assert client.closed
