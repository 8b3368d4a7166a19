"""Texts whose vectors are kept are not asked for again; the others are asked in batches."""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from dspex.gateway.answers import Answers, Found
from dspex.gateway.errors import LMUnexpectedError
from dspex.gateway.pipeline import Embedding, ProceedEmbedding
from dspex.gateway.records import EmbeddingReply, LanguageModelCall, Usage
from dspex.gateway.steps.caching import NOTHING_USED
from dspex.gateway.vectors import KeptVector, batches, keys_of, shares
from dspex.kit.clock import Clock

# Batches of one request that are on their way at once.
AT_ONCE = 4


class Vectors:
    """The outermost step of embeddings: the further ones see batches.

    A vector is the same at any time, so a policy's ages do not matter here: what is kept will do.
    """

    def __init__(self, kept: Answers[KeptVector], clock: Clock) -> None:
        self._kept = kept
        self._clock = clock

    async def __call__(self, passage: Embedding, *, proceed: ProceedEmbedding) -> EmbeddingReply:
        """Raises what the further steps raise for a batch; what others brought is kept all the same."""
        request = passage.request
        keys = keys_of(passage)
        found = await self._look(passage, keys)
        missing = [text for text in keys if text not in found]
        replies = await self._ask(passage, missing, keys, proceed)
        vectors = {text: one.answer.vector for text, one in found.items()}
        for batch, reply in replies.items():
            vectors.update(zip(batch, reply.vectors, strict=True))
        if len({len(vector) for vector in vectors.values()}) > 1:
            raise LMUnexpectedError(
                f"The model {request.model!r} gives vectors of another length than those that are kept of it; empty "
                "the cache with `dspex cache clear`.",
                model=request.model,
            )
        answered = [(one.model, one.simulated) for one in replies.values()]
        answered += [(one.answer.model, one.answer.simulated) for one in found.values()]
        return EmbeddingReply(
            tuple(vectors[text] for text in request.texts),
            answered[0][0],
            _sum([reply.usage for reply in replies.values()]),
            any(simulated for _, simulated in answered),
        )

    async def _look(self, passage: Embedding, keys: Mapping[str, str]) -> dict[str, Found[KeptVector]]:
        """What is kept, by text, with a line in the trace for all of it."""
        context, request = passage.context, passage.request
        if not context.cache.reads:
            return {}
        looked = await self._kept.look_all(context.project, list(keys.values()))
        found = {text: one for text, one in zip(keys, looked, strict=True) if one is not None}
        if found:
            kept = [one.answer for one in found.values()]
            line = LanguageModelCall(
                model=request.model,
                provider_model=kept[0].model,
                dialect=request.dialect.name,
                adapter=context.adapter,
                started_at=self._clock.now(),
                latency_ms=0.0,
                attempt=passage.attempt,
                usage=NOTHING_USED,
                cost_usd=0.0,
                simulated=any(one.simulated for one in kept),
                cache="hit",
                saved_usd=round(sum(one.cost_usd or 0.0 for one in kept), 12),
                age_s=round(max(one.age_s for one in found.values()), 3),
                request=replace(request, texts=tuple(found)),
            )
            context.calls.append(line)
        return found

    async def _ask(
        self, passage: Embedding, texts: Sequence[str], keys: Mapping[str, str], proceed: ProceedEmbedding
    ) -> dict[tuple[str, ...], EmbeddingReply]:
        """The reply to each batch. After a failure no further batch is begun."""
        waiting = batches(texts, passage.settings.embedding)
        replies: dict[tuple[str, ...], EmbeddingReply] = {}
        failures: list[Exception] = []

        async def work() -> None:
            for batch in _until(waiting, failures):
                try:
                    replies[batch] = await self._made(passage, batch, keys, proceed)
                except Exception as error:
                    failures.append(error)

        if len(texts) <= 1:
            await work()
        else:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(work())
        if failures:
            raise failures[0]
        return replies

    async def _made(
        self, passage: Embedding, batch: tuple[str, ...], keys: Mapping[str, str], proceed: ProceedEmbedding
    ) -> EmbeddingReply:
        context = passage.context
        project, writes = context.project, context.cache.writes
        generation = await self._kept.cache.generation(project) if writes else ""
        # Its own, since batches are asked at the same time; the last line is that of the answer.
        lines: list[LanguageModelCall] = []
        asked = replace(
            passage,
            request=replace(passage.request, texts=batch),
            context=replace(context, calls=lines),
            key=hashlib.sha256("".join(keys[text] for text in batch).encode()).hexdigest(),
        )
        try:
            reply = await proceed(asked)
        finally:
            context.calls.extend(lines)
        if lines and lines[-1].cache == "hit":
            self._kept.shared(project, len(batch))
        elif lines and writes:
            cost = shares(batch, lines[-1].cost_usd)
            kept = {
                keys[text]: KeptVector(vector, reply.model, cost[text], reply.simulated)
                for text, vector in zip(batch, reply.vectors, strict=True)
            }
            await self._kept.keep_all(project, kept, generation)
        return reply


def _until(waiting: Iterator[tuple[str, ...]], failures: Sequence[Exception]) -> Iterator[tuple[str, ...]]:
    while not failures and (batch := next(waiting, None)) is not None:
        yield batch


def _sum(used: Sequence[Usage]) -> Usage:
    """Of all batches; a count that one of them lacks is not known."""
    if not used:
        return NOTHING_USED
    counts = {
        name: None if None in (given := [getattr(one, name) for one in used]) else sum(given)
        for name in ("input_tokens", "output_tokens", "total_tokens")
    }
    return Usage(**counts)
