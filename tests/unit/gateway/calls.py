"""What tests of the gateway's steps call with, and a model that does as it is told."""

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR
from dspex.configuration.models import ModelSettings
from dspex.gateway.errors import LMError
from dspex.gateway.pipeline import Passage
from dspex.gateway.records import (
    CallContext,
    Dialect,
    Lane,
    LanguageModelReply,
    LanguageModelRequest,
    Message,
    Options,
    Usage,
)

REPLY = LanguageModelReply("Paris", "gpt-4o-mini-2024", Usage(10, 2, 12))


def request(model: str = "main", options: Options | None = None) -> LanguageModelRequest:
    dialect = Dialect(model="gpt-4o-mini")
    return LanguageModelRequest(model, (Message("user", "Where?"),), options or Options(), dialect)


def passage(
    settings: dict[str, Any] | None = None,
    *,
    model: str = "main",
    lane: Lane = "interactive",
    deadline: float | None = None,
    others: dict[str, dict[str, Any]] | None = None,
) -> Passage:
    """On the way to `model`; `others` are the settings of further models."""
    configured = {model: settings or {}, **(others or {})}

    def resolve(asked: LanguageModelRequest, context: CallContext) -> Passage:
        made = ModelSettings(**{"model": "openai/gpt-4o-mini", **configured[asked.model]})
        return Passage(asked, context, made, None, resolve)  # type: ignore[arg-type]

    context = CallContext("e1", "r1", LOCAL_OPERATOR, "qa", lane=lane, deadline=deadline)
    return resolve(request(model), context)


class Answers:
    """Stands where the inner steps are: answers or raises what it is given in turn, then replies for ever."""

    def __init__(self, outcomes: Iterable[LanguageModelReply | BaseException] = ()) -> None:
        self._outcomes = iter(outcomes)
        self.passages: list[Passage] = []

    async def __call__(self, passed: Passage) -> LanguageModelReply:
        self.passages.append(passed)
        outcome = next(self._outcomes, REPLY)
        if isinstance(outcome, BaseException):
            if isinstance(outcome, LMError):
                outcome.attempt = passed.attempt
            raise outcome
        return replace(outcome)
