"""Which ends of a call count against the model."""

import asyncio

import pytest

from dspex.gateway.breakers import Breakers
from dspex.gateway.errors import (
    BreakerOpen,
    ContextWindowExceededError,
    LaneFull,
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMError,
    LMInvalidRequestError,
    LMProviderError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMTransportError,
    LMUnexpectedError,
    LMUnsupportedFeatureError,
    LMUnsupportedModelError,
)
from dspex.gateway.pipeline import Passage
from dspex.gateway.records import LanguageModelReply
from dspex.gateway.steps.breaking import Breaking
from dspex.gateway.steps.retries import Retries
from dspex.kit.errors import Invalid
from dspex.kit.facts import Facts
from dspex.kit.signals import LocalSignals
from dspex.providers.memory.breakers import MemoryBreakers
from tests.clock import FakeClock
from tests.unit.gateway.calls import REPLY, Answers, passage

AGAINST = [
    LMTransportError("x"),
    LMTimeoutError("x"),
    LMServerError("x"),
    LMUnexpectedError("x"),
    LMProviderError("x"),
    LMAuthError("x"),
    LMBillingError("x"),
]
NEITHER = [
    LMRateLimitError("x"),
    LMInvalidRequestError("x"),
    ContextWindowExceededError("x"),
    LMUnsupportedModelError("x"),
    LMUnsupportedFeatureError("x"),
    LMConfigurationError("x"),
    LMTimeoutError("x", cut_short=True),
    LaneFull("x"),
    Invalid("x"),
    asyncio.CancelledError(),
    ZeroDivisionError("a defect"),
]


def named(one: BaseException) -> str:
    return type(one).__name__


class Node:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.breakers = Breakers(MemoryBreakers(self.clock), LocalSignals(), self.clock, Facts())
        self.step = Breaking(self.breakers)

    async def call(self, *outcomes: BaseException) -> None:
        for outcome in outcomes:
            with pytest.raises(type(outcome)):
                await self.step(passage(), proceed=Answers([outcome]))

    @property
    def state(self) -> str:
        return self.breakers.state("main")


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.mark.parametrize("failure", AGAINST, ids=named)
async def test_these_open_it(node: Node, failure: LMError) -> None:
    await node.call(*[failure] * 4)
    assert node.state == "closed"
    await node.call(failure)
    assert node.state == "open"
    with pytest.raises(BreakerOpen, match=failure.code):
        await node.step(passage(), proceed=Answers())


@pytest.mark.parametrize("end", NEITHER, ids=named)
async def test_these_count_neither_for_nor_against_it(node: Node, end: BaseException) -> None:
    await node.call(*[LMServerError("x")] * 4)
    await node.call(*[end] * 10)
    assert node.state == "closed"
    await node.call(LMServerError("x"))
    assert node.state == "open"


@pytest.mark.parametrize("end", NEITHER, ids=named)
async def test_a_trial_that_ends_so_makes_room_for_the_next(node: Node, end: BaseException) -> None:
    await node.call(*[LMServerError("x")] * 5)
    node.clock.advance(60)
    await node.call(end)
    for _ in range(3):
        assert node.state == "half_open"
        assert await node.step(passage(), proceed=Answers()) == REPLY
    assert node.state == "closed"


async def test_one_trial_while_the_others_are_refused_at_once(node: Node) -> None:
    await node.call(*[LMServerError("x")] * 5)
    node.clock.advance(60)
    go = asyncio.Event()

    async def proceed(_: Passage) -> LanguageModelReply:
        await go.wait()
        return REPLY

    trial = asyncio.create_task(node.step(passage(), proceed=proceed))
    await asyncio.sleep(0)
    for _ in range(10):
        with pytest.raises(BreakerOpen):
            await node.step(passage(), proceed=Answers())
    go.set()
    assert await trial == REPLY


async def test_models_have_breakers_of_their_own(node: Node) -> None:
    await node.call(*[LMServerError("x")] * 5)
    assert await node.step(passage(model="other"), proceed=Answers()) == REPLY


async def test_an_opening_breaker_ends_the_retries_of_other_calls(node: Node) -> None:
    retries = Retries(node.clock, sleep=node.clock.sleep)
    answers = Answers([LMServerError("x")] * 99)

    async def proceed(passed: Passage) -> LanguageModelReply:
        return await node.step(passed, proceed=answers)

    for _ in range(4):
        with pytest.raises((LMServerError, BreakerOpen)):
            await retries(passage(), proceed=proceed)
    assert len(answers.passages) == 5
