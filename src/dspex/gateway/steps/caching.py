"""Answers from the cache in place of the model, and keeps what the model answers."""

import hashlib
import sys
from collections.abc import Mapping
from operator import attrgetter
from typing import Annotated

from msgspec import Meta
from msgspec.structs import fields, replace

from dspex.gateway.answers import Answers, Found, KeptAsJson
from dspex.gateway.pipeline import Completion, ProceedCompletion
from dspex.gateway.records import Dialect, LanguageModelCall, LanguageModelReply, Options, Usage
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError

NOTHING_USED = Usage(0, 0, 0)
FULL = "stop"
_options = attrgetter(*(one.name for one in fields(Options)))
_dialect = attrgetter(*(one.name for one in fields(Dialect)))


class KeptReply(KeptAsJson, frozen=True):
    """A full answer of a model. `cost_usd` is what it cost when it was made."""

    text: Annotated[str, Meta(min_length=1)]
    model: str
    usage: Mapping[str, int]
    cost_usd: Annotated[float, Meta(ge=0, le=sys.float_info.max)] | None
    refusal: str | None = None
    simulated: bool = False

    def reply(self) -> LanguageModelReply:
        return LanguageModelReply(
            self.text, self.model, NOTHING_USED, FULL, refusal=self.refusal, simulated=self.simulated
        )


def reply_key(passage: Completion) -> str:
    """sha256 over everything that shapes the answer. Python's own notation keeps apart what JSON would merge."""
    request, settings = passage.request, passage.settings
    content = (
        passage.context.project,
        request.model,
        settings.model,
        settings.api_base,
        _dialect(request.dialect),
        _options(request.options),
        [(one.role, one.content) for one in request.messages],
        request.rollout_id,
    )
    return hashlib.sha256(repr(content).encode()).hexdigest()


def is_full(reply: LanguageModelReply) -> bool:
    """Whether the model said all it had to say: half an answer is not given twice."""
    return bool(reply.text) and reply.finish_reason == FULL


class Caching:
    """Kept are full answers of the model that was asked; those of a fallback would outlive the trouble."""

    def __init__(self, replies: Answers[KeptReply], clock: Clock) -> None:
        self._replies = replies
        self._clock = clock

    async def __call__(self, passage: Completion, *, proceed: ProceedCompletion) -> LanguageModelReply:
        """Raises what the further steps raise, unless the policy has an older answer in its place."""
        context = passage.context
        policy = context.cache
        if policy.mode == "off" or passage.request.canonical is not None:
            # What is kept of a reply is its text; the answers to canonical requests have more.
            return await proceed(passage)
        key = reply_key(passage)
        if policy.writes:
            context.cached.append(key)
        if policy.reads:
            found = await self._replies.look(context.project, key, policy)
            if found is not None:
                return self._answer(passage, found, stale=False)
        try:
            return await self._made(replace(passage, key=key), key, proceed)
        except DspexError as error:
            found = await self._replies.look_stale(context.project, key, policy, error)
            if found is None:
                raise
            return self._answer(passage, found, stale=True)

    async def _made(self, passage: Completion, key: str, proceed: ProceedCompletion) -> LanguageModelReply:
        context = passage.context
        writes = context.cache.writes
        generation = await self._replies.cache.generation(context.project) if writes else ""
        # Its own, since calls of one run may be made at the same time; the last line is that of the answer.
        lines: list[LanguageModelCall] = []
        try:
            reply = await proceed(replace(passage, context=replace(context, calls=lines)))
        finally:
            context.calls.extend(lines)
        line = lines[-1] if lines else None
        if line is not None and line.cache == "hit":
            self._replies.shared(context.project)
        elif line is not None and writes and is_full(reply) and line.model == passage.request.model:
            kept = KeptReply(
                reply.text or "",
                reply.model,
                dict(reply.usage.counted()),
                line.cost_usd,
                reply.refusal,
                reply.simulated,
            )
            await self._replies.keep(context.project, key, kept, generation)
        return reply

    def _answer(self, passage: Completion, found: Found[KeptReply], *, stale: bool) -> LanguageModelReply:
        """A line in the trace for what somebody else paid for."""
        kept, request = found.answer, passage.request
        line = LanguageModelCall(
            model=request.model,
            provider_model=kept.model,
            dialect=request.dialect.name,
            adapter=passage.context.adapter,
            started_at=self._clock.now(),
            latency_ms=0.0,
            attempt=passage.attempt,
            usage=NOTHING_USED,
            cost_usd=0.0,
            reply=kept.text,
            finish_reason=FULL,
            simulated=kept.simulated,
            cache="hit",
            saved_usd=kept.cost_usd or 0.0,
            age_s=round(found.age_s, 3),
            stale=stale,
            step=passage.context.step,
        )
        passage.context.calls.append(line)
        return kept.reply()
