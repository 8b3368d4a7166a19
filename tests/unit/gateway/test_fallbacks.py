"""Another model answers, asked in its own way."""

from typing import Any

import pytest

from dspex.configuration.models import ModelSettings
from dspex.gateway.errors import (
    BreakerOpen,
    ContextWindowExceededError,
    LaneFull,
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMError,
    LMInvalidRequestError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMTransportError,
    LMUnexpectedError,
    LMUnsupportedFeatureError,
    LMUnsupportedModelError,
)
from dspex.gateway.fallback import rewritten
from dspex.gateway.pipeline import Passage
from dspex.gateway.records import Dialect, Options, Spelling
from dspex.gateway.steps.fallbacks import Fallbacks
from dspex.kit.errors import Invalid
from tests.clock import FakeClock
from tests.unit.gateway.calls import REPLY, Answers, passage, request


class Spelled:
    """Every model is spelled like its name; what is called "odd/..." can't be asked."""

    async def of(self, settings: ModelSettings) -> Spelling:
        if settings.model.startswith("odd/"):
            raise LMConfigurationError("no such wire")
        return Spelling(Dialect(model=settings.model), Options(temperature=settings.temperature))


def asking(*fallbacks: str, deadline: float | None = None, **others: Any) -> Passage:
    models = {name: {"model": f"own/{name}", **others.get(name, {})} for name in fallbacks}
    return passage({"model": "own/main", "fallbacks": fallbacks}, deadline=deadline, others=models)


def fallbacks() -> Fallbacks:
    return Fallbacks(Spelled(), FakeClock())


@pytest.mark.parametrize(
    "failure",
    [
        BreakerOpen("x"),
        LaneFull("x"),
        LMTransportError("x"),
        LMTimeoutError("x"),
        LMServerError("x"),
        LMRateLimitError("x"),
        LMAuthError("x"),
        LMBillingError("x"),
        LMConfigurationError("x"),
        LMUnexpectedError("x"),
        LMUnsupportedModelError("x"),
        ContextWindowExceededError("x"),
    ],
    ids=lambda one: type(one).__name__,
)
async def test_it_answers_what_the_model_can_not(failure: LMError) -> None:
    answers = Answers([failure])
    assert await fallbacks()(asking("backup"), proceed=answers) == REPLY
    first, second = answers.passages
    assert (first.request.model, first.fallback_for) == ("main", None)
    assert (second.request.model, second.fallback_for) == ("backup", "main")
    assert second.request.dialect.model == second.settings.model == "own/backup"
    assert second.request.messages == first.request.messages


@pytest.mark.parametrize(
    "failure",
    [LMInvalidRequestError("x"), LMUnsupportedFeatureError("x"), Invalid("x")],
    ids=lambda one: type(one).__name__,
)
async def test_a_bad_request_stays_one(failure: Exception) -> None:
    answers = Answers([failure])
    with pytest.raises(type(failure)):
        await fallbacks()(asking("backup"), proceed=answers)
    assert len(answers.passages) == 1


async def test_without_fallbacks_the_failure_is_raised_as_it_is() -> None:
    failure = LMServerError("x")
    with pytest.raises(LMServerError) as raised:
        await fallbacks()(asking(), proceed=Answers([failure]))
    assert raised.value is failure


async def test_they_are_tried_in_order_each_once() -> None:
    answers = Answers([LMServerError("main"), LMServerError("one"), LMInvalidRequestError("two")])
    others = {"one": {"fallbacks": ("main", "never")}}
    assert await fallbacks()(asking("one", "two", "one", "three", **others), proceed=answers) == REPLY
    assert [one.request.model for one in answers.passages] == ["main", "one", "two", "three"]


async def test_when_none_answers_the_first_failure_is_told() -> None:
    with pytest.raises(LMRateLimitError, match="main"):
        await fallbacks()(
            asking("one", "two"),
            proceed=Answers([LMRateLimitError("main"), LMServerError("one"), BreakerOpen("two")]),
        )


async def test_attempts_are_counted_on() -> None:
    failure = LMServerError("x")

    async def proceed(passed: Passage) -> Any:
        if passed.request.model == "main":
            failure.attempt = 3
            raise failure
        assert passed.attempt == 4
        return REPLY

    assert await fallbacks()(asking("backup"), proceed=proceed) == REPLY


async def test_an_open_breaker_made_no_attempt() -> None:
    async def proceed(passed: Passage) -> Any:
        if passed.request.model == "main":
            raise BreakerOpen("x")
        assert passed.attempt == 1
        return REPLY

    assert await fallbacks()(asking("backup"), proceed=proceed) == REPLY


async def test_one_that_can_not_be_asked_is_passed_over() -> None:
    answers = Answers([LMServerError("x")])
    others = {"odd": {"model": "odd/one"}}
    assert await fallbacks()(asking("odd", "backup", **others), proceed=answers) == REPLY
    assert answers.passages[-1].request.model == "backup"


async def test_after_the_deadline_nobody_is_asked() -> None:
    answers = Answers([LMTimeoutError("x")])
    with pytest.raises(LMTimeoutError):
        await fallbacks()(asking("backup", deadline=0.0), proceed=answers)
    assert len(answers.passages) == 1


MAIN = Spelling(Dialect(model="main"), Options(temperature=0.0, max_tokens=1000, reasoning_effort="low"))
BACKUP = Spelling(
    Dialect("anthropic", "anthropic", "backup"), Options(temperature=0.7, max_tokens=4000, top_k=5)
)


def options_for_backup(given: Options, other: Spelling = BACKUP) -> Options:
    return rewritten(request(options=given), "backup", MAIN, other).options


def test_what_the_registry_sets_for_the_one_becomes_what_it_sets_for_the_other() -> None:
    assert options_for_backup(MAIN.options) == BACKUP.options


def test_what_the_program_or_the_caller_set_goes_along() -> None:
    form = {"type": "json_object"}
    given = Options(temperature=0.2, max_tokens=50, seed=7, stop=("x",), response_format=form)
    assert options_for_backup(given) == Options(
        temperature=0.2, max_tokens=50, seed=7, stop=("x",), response_format=form, top_k=5
    )


def test_what_was_meant_for_the_one_model_stays_behind() -> None:
    given = Options(
        reasoning_effort="high",
        extensions={"logit_bias": {}},
        service_tier="flex",
        store=True,
        top_k=9,
        user_id="u",
    )
    assert options_for_backup(given) == Options(top_k=5)


def test_a_limit_of_tokens_is_kept_where_the_other_has_none() -> None:
    bare = Spelling(BACKUP.dialect, Options())
    assert options_for_backup(MAIN.options, bare) == Options(max_tokens=1000)


def test_the_request_is_in_the_others_dialect() -> None:
    made = rewritten(request(), "backup", MAIN, BACKUP)
    assert (made.model, made.dialect) == ("backup", BACKUP.dialect)
