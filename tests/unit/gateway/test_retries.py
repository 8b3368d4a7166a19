"""The step that tries again."""

import asyncio
import gc
import weakref
from contextlib import suppress
from typing import Any

import pytest

from dspex.gateway.backoff import RESERVE
from dspex.gateway.errors import (
    BreakerOpen,
    LaneFull,
    LMAuthError,
    LMError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
)
from dspex.gateway.pipeline import Passage
from dspex.gateway.records import LanguageModelReply
from dspex.gateway.steps.retries import Retries
from dspex.kit.errors import Invalid
from tests.clock import FakeClock
from tests.unit.gateway.calls import REPLY, Answers, passage


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def retries(clock: FakeClock) -> Retries:
    return Retries(clock, draw=lambda: 1.0, sleep=clock.sleep)


async def test_two_failures_and_an_answer(retries: Retries, clock: FakeClock) -> None:
    answers = Answers([LMServerError("x"), LMServerError("x")])
    assert await retries(passage(), proceed=answers) == REPLY
    assert [one.attempt for one in answers.passages] == [1, 2, 3]
    assert clock.passed_s == 0.5 + 1.0


async def test_the_last_failure_is_raised_when_all_attempts_are_used(retries: Retries) -> None:
    failures = [LMServerError("first"), LMTimeoutError("second"), LMServerError("third")]
    with pytest.raises(LMServerError, match="third"):
        await retries(passage(), proceed=Answers(failures))


async def test_what_will_not_pass_is_raised_at_once(retries: Retries, clock: FakeClock) -> None:
    answers = Answers([LMAuthError("x")])
    with pytest.raises(LMAuthError):
        await retries(passage(), proceed=answers)
    assert (len(answers.passages), clock.passed_s) == (1, 0)


async def test_other_errors_are_none_of_its_business(retries: Retries) -> None:
    answers = Answers([Invalid("not encodable")])
    with pytest.raises(Invalid):
        await retries(passage(), proceed=answers)
    assert len(answers.passages) == 1


async def test_an_opening_breaker_ends_the_retries_and_the_real_failure_is_told(retries: Retries) -> None:
    answers = Answers([LMServerError("it burns"), BreakerOpen("open", retry_after=60)])
    with pytest.raises(LMServerError, match="it burns") as raised:
        await retries(passage(), proceed=answers)
    assert raised.value.retry_after == 60
    assert len(answers.passages) == 2


@pytest.mark.parametrize("last", [LaneFull("full"), LMTimeoutError("no time was left", cut_short=True)])
async def test_a_failure_to_get_through_again_does_not_hide_why(retries: Retries, last: LMError) -> None:
    with pytest.raises(LMServerError, match="it burns"):
        await retries(passage(), proceed=Answers([LMServerError("it burns"), last, last]))


async def test_a_breaker_that_is_open_from_the_start_is_told(retries: Retries) -> None:
    with pytest.raises(BreakerOpen):
        await retries(passage(), proceed=Answers([BreakerOpen("open", retry_after=60)]))


async def test_the_calls_deadline_is_never_passed(retries: Retries, clock: FakeClock) -> None:
    answers = Answers([LMServerError("x")] * 9)
    with pytest.raises(LMServerError):
        await retries(passage({"retries": {"attempts": 9}}, deadline=4.0), proceed=answers)
    assert len(answers.passages) == 4  # at 0, 0.5, 1.5 and 3.5 s; the next would come at 7.5 s.
    assert clock.passed_s == 3.5


async def test_a_rate_limit_that_lasts_too_long_is_passed_on(retries: Retries, clock: FakeClock) -> None:
    with pytest.raises(LMRateLimitError) as raised:
        await retries(passage(), proceed=Answers([LMRateLimitError("x", retry_after=30)]))
    assert (raised.value.retry_after, clock.passed_s) == (30, 0)


async def test_in_the_background_it_is_patient(retries: Retries, clock: FakeClock) -> None:
    answers = Answers([LMRateLimitError("x"), LMServerError("x"), LMServerError("x"), LMServerError("x")])
    assert await retries(passage(lane="optimization"), proceed=answers) == REPLY
    assert clock.passed_s == 60 + 4 + 8 + 16


async def test_a_model_that_is_down_uses_up_its_retries() -> None:
    async def no_time(_: float) -> None:
        return

    retries, calls, made = Retries(FakeClock(), sleep=no_time), 100, 0
    for _ in range(calls):
        answers = Answers([LMServerError("x")] * 3)
        with pytest.raises(LMServerError):
            await retries(passage(), proceed=answers)
        made += len(answers.passages)
    assert calls < made <= calls * 1.2 + RESERVE + 1


async def test_retries_of_one_model_or_lane_take_nothing_from_another(retries: Retries) -> None:
    for _ in range(100):
        with pytest.raises(LMServerError):
            await retries(passage(lane="evaluation"), proceed=Answers([LMServerError("x")] * 5))
    for other in (passage(), passage(model="other", lane="evaluation")):
        assert await retries(other, proceed=Answers([LMServerError("x")])) == REPLY


async def test_a_caller_that_leaves_ends_the_wait() -> None:
    retries, answers = Retries(FakeClock(), draw=lambda: 1.0), Answers([LMServerError("x")])
    task = asyncio.create_task(retries(passage({"retries": {"base_s": 60, "max_s": 60}}), proceed=answers))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(answers.passages) == 1


async def test_a_model_that_hangs_is_not_asked_again_while_there_is_another(retries: Retries) -> None:
    hangs = [LMTimeoutError("30 s are over")]
    answers = Answers(hangs)
    with pytest.raises(LMTimeoutError):
        await retries(passage({"fallbacks": ["other"]}, others={"other": {}}), proceed=answers)
    assert len(answers.passages) == 1
    assert await retries(passage(), proceed=Answers(hangs)) == REPLY


async def test_a_failure_leaves_nothing_for_the_garbage_collector(retries: Retries) -> None:
    gone: list[weakref.ref[LMServerError]] = []

    def failure() -> LMServerError:
        error = LMServerError("x")
        gone.append(weakref.ref(error))
        return error

    async def fails(_: Passage[Any, Any]) -> LanguageModelReply:
        raise failure()

    gc.disable()
    try:
        with suppress(LMServerError):
            await retries(passage(), proceed=fails)
        assert [one() for one in gone] == [None, None, None]
    finally:
        gc.enable()
