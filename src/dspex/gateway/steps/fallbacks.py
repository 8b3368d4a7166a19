"""Another model answers when the one that was asked can't."""

import structlog
from msgspec.structs import replace

from dspex.gateway.errors import LMError
from dspex.gateway.fallback import rewritten
from dspex.gateway.pipeline import Completion, ProceedCompletion
from dspex.gateway.ports import Spellings
from dspex.gateway.records import LanguageModelReply, Spelling
from dspex.kit.clock import Clock

log = structlog.get_logger(__name__)


class Fallbacks:
    """Only the fallbacks of the model that was asked for are tried, each once: their own do not count."""

    def __init__(self, spellings: Spellings, clock: Clock) -> None:
        self._spellings = spellings
        self._clock = clock

    async def __call__(self, passage: Completion, *, proceed: ProceedCompletion) -> LanguageModelReply:
        """Raises the error of the model that was asked for when no fallback answers either."""
        try:
            return await proceed(passage)
        except LMError as error:
            if not (error.replaceable and passage.settings.fallbacks):
                raise
            reply = await self._from_another(passage, error, proceed)
            if reply is None:
                raise
            return reply

    async def _from_another(
        self, passage: Completion, failure: LMError, proceed: ProceedCompletion
    ) -> LanguageModelReply | None:
        asked = passage.request.model
        made = max(failure.attempt, passage.attempt - 1)
        for alias in dict.fromkeys(passage.settings.fallbacks):
            deadline = passage.context.deadline
            if deadline is not None and deadline <= self._clock.monotonic():
                break
            try:
                reply = await proceed(await self._other(passage, alias, made + 1))
            except LMError as error:
                made = max(made, error.attempt)
                log.debug("fallback_failed", model=asked, fallback=alias, reason=error.message)
                continue
            log.debug("fallback_answered", model=asked, fallback=alias, reason=failure.code)
            return reply
        return None

    async def _other(self, passage: Completion, alias: str, attempt: int) -> Completion:
        """The way to a fallback, with the request in its own spelling."""
        request = passage.request
        other = passage.resolve(replace(request, model=alias), passage.context)
        try:
            asked = await self._spellings.of(passage.settings)
        except LMError:
            # Compiled for a model that the registry has no more: what it sets can't be told from the program's own.
            asked = Spelling(request.dialect, request.options)
        spelling = await self._spellings.of(other.settings)
        return replace(
            other,
            request=rewritten(request, alias, asked, spelling),
            attempt=attempt,
            fallback_for=request.model,
        )
