"""A gateway with the steps under test, a scripted model behind it, and calls to make."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR, Principal
from dspex.configuration.models import ModelSettings
from dspex.gateway.pipeline import Step
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
from dspex.kit.clock import Clock
from dspex.kit.facts import Facts

REPLY = LanguageModelReply("Paris", "gpt-4o-mini-2024", Usage(10, 2, 12))
CALLER = replace(LOCAL_OPERATOR, key_id="k1")
Outcome = LanguageModelReply | BaseException | None


@dataclass
class Model:
    """Answers with the outcomes in turn, then REPLY; None waits until it is cancelled or `released`."""

    outcomes: deque[Outcome] = field(default_factory=deque)
    asked: int = 0
    requests: list[LanguageModelRequest] = field(default_factory=list)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        self.asked += 1
        self.requests.append(request)
        outcome = self.outcomes.popleft() if self.outcomes else REPLY
        if outcome is None:
            self.waiting.set()
            await self.released.wait()
            outcome = REPLY
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def aclose(self) -> None:
        return


@dataclass
class PerToken:
    """US dollars for an input and an output token, by alias; other aliases have no price."""

    rates: Mapping[str, tuple[float, float]] = field(default_factory=lambda: {"main": (0.001, 0.01)})

    async def cost(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        if model not in self.rates or usage.input_tokens is None or usage.output_tokens is None:
            return None
        rates = self.rates[model]
        return usage.input_tokens * rates[0] + usage.output_tokens * rates[1]


def gateway(model: Model, prices: Any, clock: Clock, *steps: Step, **settings: Any) -> LanguageModelGateway:
    """One alias, `main`, and `other` as one that it may fall back to."""
    models = {
        "main": ModelSettings(model="openai/gpt-4o-mini", **settings),
        "other": ModelSettings(model="openai/gpt-4o"),
    }
    return LanguageModelGateway({"main": model, "other": model}, models, prices, clock, Facts(), steps)


def request(content: str = "x" * 276, max_tokens: int | None = 10, **options: Any) -> LanguageModelRequest:
    """276 bytes and one message are estimated as 100 tokens."""
    given = Options(max_tokens=max_tokens, **options)
    return LanguageModelRequest("main", (Message("user", content),), given, Dialect())


def context(principal: Principal = CALLER, **more: Any) -> CallContext:
    return CallContext("e1", "r1", principal, "qa", **more)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)
