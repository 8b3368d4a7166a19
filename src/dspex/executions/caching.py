"""Whole predictions from the cache: nothing is rendered, called or parsed."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from dspex.configuration.caching import CachePolicy
from dspex.executions.catalog import Runnable
from dspex.executions.outcomes import Outcome, is_of_the_reply
from dspex.executions.steps import NO_STEPS, Progress
from dspex.gateway.answers import Answers, Found, KeptAsJson
from dspex.gateway.records import CallContext, LanguageModelCall
from dspex.gateway.steps.caching import FULL, NOTHING_USED, KeptReply
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError


class KeptPrediction(KeptAsJson, frozen=True):
    """`cost_usd` is what the model's answers cost when they were made; 0.0 when that is not known."""

    outputs: Mapping[str, Any]
    violations: tuple[Mapping[str, str], ...]
    provider_model: str
    cost_usd: float
    simulated: bool


# The outcome, and the line that stands for it in the trace.
Hit = tuple[Outcome, LanguageModelCall]


def prediction_key(
    runnable: Runnable,
    project: str,
    models: Sequence[tuple[str, str | None] | None],
    inputs: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> str:
    """sha256 over everything that shapes the outputs, of typed inputs; `models` are what the aliases stand for.

    The compiled document stands for signature, prompts, demos and options.
    """
    content = (
        project,
        runnable.version_id,
        runnable.compiled_digest,
        runnable.settings.on_violation,
        [*runnable.models.values()],
        models,
        inputs,
        sorted(parameters.items()),
    )
    return hashlib.sha256(repr(content).encode()).hexdigest()


class PredictionCaching:
    """Around a run. What a run that fails got from the model is not given again."""

    def __init__(
        self, predictions: Answers[KeptPrediction], replies: Answers[KeptReply], clock: Clock
    ) -> None:
        self._predictions = predictions
        self._replies = replies
        self._clock = clock

    async def look(self, runnable: Runnable, project: str, key: str, policy: CachePolicy) -> Hit | None:
        """What is kept, if the policy takes it."""
        found = await self._predictions.look(project, key, policy) if policy.reads else None
        return None if found is None else self._hit(runnable, found, stale=False)

    async def run(
        self,
        runnable: Runnable,
        call: CallContext,
        key: str,
        make: Callable[[], Awaitable[Outcome]],
        progress: Progress = NO_STEPS,
    ) -> Outcome:
        """What `make` makes, which is kept. Raises as it does, unless the policy has an older answer instead."""
        policy, project = call.cache, call.project
        generation = await self._predictions.cache.generation(project)
        try:
            outcome = await make()
        except DspexError as error:
            calls = [one for one in call.calls if one.step == progress.failed]
            # Those of the steps that finished are good.
            spoilt = call.cached if progress.failed is None else progress.spoilt
            if is_of_the_reply(error, calls):
                await self._replies.discard(project, spoilt)
                raise
            found = await self._predictions.look_stale(project, key, policy, error)
            if found is None:
                raise
            outcome, line = self._hit(runnable, found, stale=True)
            call.calls.append(line)
            return outcome
        if outcome.error is not None:
            await self._replies.discard(project, [*call.cached, *progress.spoilt])
        elif not progress.all_went_well:
            # The next run may have what this one went without.
            await self._replies.discard(project, progress.spoilt)
        elif policy.writes and (kept := to_keep(runnable, outcome, call.calls)) is not None:
            await self._predictions.keep(project, key, kept, generation, age_s=age_of(call.calls))
        return outcome

    def _hit(self, runnable: Runnable, found: Found[KeptPrediction], *, stale: bool) -> Hit:
        line = hit_call(runnable, found, self._clock.now(), stale=stale)
        return Outcome(found.answer.outputs, found.answer.violations), line


def to_keep(
    runnable: Runnable, outcome: Outcome, calls: Sequence[LanguageModelCall]
) -> KeptPrediction | None:
    """None for what must not answer again: failures, half and stale answers, those of another model."""
    if outcome.error is not None or outcome.outputs is None:
        return None
    answers = [call for call in calls if call.error is None]
    said = [one for one in answers if not one.embeds]
    if not said or any(
        one.stale or one.finish_reason != FULL or one.model != runnable.models.get(one.step, runnable.model)
        for one in said
    ):
        return None
    paid = [one.saved_usd if one.cache == "hit" else one.cost_usd or 0.0 for one in answers]
    return KeptPrediction(
        outcome.outputs,
        outcome.violations,
        said[-1].provider_model,
        round(sum(paid), 12),
        any(one.simulated for one in answers),
    )


def age_of(calls: Sequence[LanguageModelCall]) -> float:
    """What was made of an old reply is as old as that."""
    return max((call.age_s or 0.0 for call in calls), default=0.0)


def hit_call(
    runnable: Runnable, found: Found[KeptPrediction], at: datetime, *, stale: bool
) -> LanguageModelCall:
    """The line of the trace: no call, but where the outputs come from and what they had cost."""
    return LanguageModelCall(
        model=runnable.model,
        provider_model=found.answer.provider_model,
        dialect="",
        adapter=None,
        started_at=at,
        latency_ms=0.0,
        attempt=1,
        usage=NOTHING_USED,
        cost_usd=0.0,
        simulated=found.answer.simulated,
        cache="hit",
        saved_usd=found.answer.cost_usd,
        age_s=round(found.age_s, 3),
        stale=stale,
    )
