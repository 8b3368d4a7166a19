"""Rate limits: of the caller outside of fallbacks and retries, of a model for each attempt at it."""

from collections.abc import Sequence

from dspex.configuration.settings import RateLimits
from dspex.configuration.spending import RateLimit
from dspex.gateway.accounting import CallsApart, estimate
from dspex.gateway.errors import LMRateLimitError
from dspex.gateway.pipeline import Passage, Proceed, Q, R
from dspex.gateway.ports import RateLimiter
from dspex.gateway.rate_window import Charge, Counter, Refusal, ScopeKind
from dspex.gateway.records import EmbeddingRequest, LanguageModelCall, LanguageModelRequest
from dspex.kit.errors import Exhausted

Limited = tuple[ScopeKind, str, str, RateLimit]


class CallerLimits:
    """The limits of a call's key, session and program, checked at once: all have room for it, or none is charged."""

    def __init__(self, limiter: RateLimiter, everybody: RateLimits) -> None:
        self._limiter = limiter
        self._session = _set(everybody.session)
        self._key = _set(everybody.key)

    async def __call__(self, passage: Passage[Q, R], *, proceed: Proceed[Q, R]) -> R:
        """Raises Exhausted (code rate_limited) with the seconds after which the call would pass."""
        limited = self._limited(passage)
        if not limited:
            return await proceed(passage)
        tokens = _tokens(passage.request, limited)
        reservation = await self._limiter.reserve(_charges(limited, tokens))
        if isinstance(reservation, Refusal):
            raise Exhausted(_message(reservation), code="rate_limited", retry_after=reservation.retry_after)
        apart = CallsApart(passage)
        try:
            with apart:
                return await proceed(apart.passage)
        finally:
            calls = apart.calls
            reservation.settle(min(len(calls), 1), _used(calls, tokens))

    def _limited(self, passage: Passage[Q, R]) -> list[Limited]:
        context = passage.context
        principal = context.principal
        limited: list[Limited] = []
        if principal.key_id is not None:
            limit = principal.rate_limit or self._key
            if limit is not None:
                limited.append(("key", principal.home, principal.key_id, limit))
        if self._session is not None and context.session_id is not None:
            limited.append(("session", principal.project, context.session_id, self._session))
        if context.rate_limit is not None:
            limited.append(("program", principal.project, context.program, context.rate_limit))
        return limited


class ModelLimits:
    """The limit of the model that is asked, so that its provider's own is not passed. Stands inside fallbacks and

    retries: a model without room is one that can't answer now, as if the provider had said so.
    """

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter

    async def __call__(self, passage: Passage[Q, R], *, proceed: Proceed[Q, R]) -> R:
        """Raises LMRateLimitError (code rate_limited) with the seconds after which the attempt would pass."""
        limit = _set(passage.settings.rate_limit)
        if limit is None:
            return await proceed(passage)
        alias = passage.request.model
        limited: list[Limited] = [("model", "", alias, limit)]
        tokens = _tokens(passage.request, limited)
        reservation = await self._limiter.reserve(_charges(limited, tokens))
        if isinstance(reservation, Refusal):
            raise LMRateLimitError(
                _message(reservation), model=alias, code="rate_limited", retry_after=reservation.retry_after
            )
        apart = CallsApart(passage)
        try:
            with apart:
                return await proceed(apart.passage)
        finally:
            calls = apart.calls
            reservation.settle(min(len(calls), 1), _used(calls, tokens))


def _set(limit: RateLimit) -> RateLimit | None:
    return None if limit == RateLimit() else limit


def _tokens(request: LanguageModelRequest | EmbeddingRequest, limited: Sequence[Limited]) -> int:
    """The estimate, where a limit asks for it."""
    if all(limit.tokens_per_minute is None for _, _, _, limit in limited):
        return 0
    return estimate(request).total_tokens or 0


def _charges(limited: Sequence[Limited], tokens: int) -> list[Charge]:
    charges = []
    for scope, project, name, limit in limited:
        if (requests := limit.requests_per_minute) is not None:
            charges.append(Charge(Counter(scope, project, name, "requests"), requests, 1))
        if (most := limit.tokens_per_minute) is not None:
            # What alone is more than the limit may go when the minute is empty.
            charges.append(Charge(Counter(scope, project, name, "tokens"), most, min(tokens, most)))
    return charges


def _used(calls: Sequence[LanguageModelCall], estimated: int) -> int:
    """Tokens of these attempts: nothing for those that failed without saying, the estimate for such an answer."""
    used = 0
    for call in calls:
        usage = call.usage
        if usage.total_tokens is not None:
            used += usage.total_tokens
        elif usage.input_tokens is not None or usage.output_tokens is not None:
            used += (usage.input_tokens or 0) + (usage.output_tokens or 0)
        elif call.error is None:
            used += estimated
    return used


def _message(refusal: Refusal) -> str:
    charge, counter = refusal.charge, refusal.charge.counter
    return (
        f"The {counter.scope} {counter.name!r} may use {charge.limit} {counter.unit} a minute; the last minute has "
        f"{refusal.used}, and this call would add {charge.amount}. Try again in {refusal.retry_after:.3g} s."
    )
