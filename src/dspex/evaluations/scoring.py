"""Scorers: each metric as something that an example is given to."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from dspex.access.records import Principal
from dspex.configuration.caching import CachePolicy
from dspex.configuration.models import ModelSettings
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.judging import cosine, judge_inputs, judged, pairs_of, similar
from dspex.evaluations.metrics.records import MetricSpec, Score
from dspex.evaluations.metrics.scoring import scored
from dspex.evaluations.records import Evaluation
from dspex.evaluations.rules import calls_of, cost_of, tokens_of
from dspex.executions.background.running import LANE
from dspex.executions.catalog import Runnable
from dspex.executions.embedding import EmbeddingOrder, Embeddings
from dspex.executions.ports import Keeper
from dspex.executions.predictions import Predictions
from dspex.executions.records import Execution, ExecutionError
from dspex.executions.requests import PredictionRequest
from dspex.gateway.records import Cap
from dspex.gateway.vectors import numbers
from dspex.kit import json
from dspex.kit.errors import Invalid


class Answered(Struct, frozen=True):
    """An example whose program has answered."""

    execution_id: str
    inputs: Mapping[str, Any]
    expected: Mapping[str, Any]
    outputs: Mapping[str, Any]


class Scoring(Struct, frozen=True):
    """A score, or the error of what the metric needs, which may pass, or why there is none. With what it took."""

    score: Score | None
    error: ExecutionError | None = None
    failed: MetricFailed | None = None
    cost_usd: float | None = 0.0
    lm_calls: int = 0
    tokens: int = 0


class Scorer(Protocol):
    async def score(self, answered: Answered, principal: Principal) -> Scoring:
        """Raises MetricFailed for an example without a score; other errors end the evaluation."""
        ...

    async def aclose(self) -> None:
        """Gives up what is under way."""
        ...


class MetricParts(Protocol):
    """What metrics need of the node: its models and their prices."""

    @property
    def registry(self) -> Mapping[str, ModelSettings]:
        """The models of the node, by alias."""
        ...

    def check_model(self, metric: MetricSpec) -> str | None:
        """The alias of the model that the metric asks, None for none that is known.

        Raises Invalid for one that is not there, or of the wrong type.
        """
        ...

    async def check_code(self, metric: MetricSpec, principal: Principal) -> None:
        """Raises Invalid (code bad_metric) for Python that can't be imported, where a worker can look now."""
        ...

    async def priced(self, model: str) -> bool:
        """Whether a model's price is known, by its alias."""
        ...

    async def scorer(self, evaluation: Evaluation, keeper: Keeper) -> Scorer:
        """Raises what makes it impossible."""
        ...


class PureScorer:
    def __init__(self, spec: MetricSpec) -> None:
        self._spec = spec

    async def score(self, answered: Answered, principal: Principal) -> Scoring:
        return Scoring(scored(self._spec, answered.expected, answered.outputs))

    async def aclose(self) -> None:
        """Nothing is ever under way."""


class JudgeScorer:
    """A model judges: a program of ours, so that what it says is kept, paid for and traced as any answer."""

    def __init__(
        self,
        spec: MetricSpec,
        evaluation_id: str,
        judge: Runnable,
        predictions: Predictions,
        keeper: Keeper,
        cache: CachePolicy | None,
    ) -> None:
        self._spec = spec
        self._evaluation_id = evaluation_id
        self._judge = judge
        self._predictions = predictions
        self._keeper = keeper
        self._cache = cache

    async def score(self, answered: Answered, principal: Principal) -> Scoring:
        inputs = judge_inputs(self._spec, answered.inputs, answered.expected, answered.outputs)
        request = PredictionRequest(
            principal=principal,
            request_id=self._evaluation_id,
            inputs=inputs,
            size=len(json.dumps(inputs)),
            metadata={"evaluation": self._evaluation_id, "judges": answered.execution_id},
            cache=self._cache,
            lane=LANE,
            keeper=self._keeper,
        )
        try:
            execution = await self._predictions.run(self._judge, request)
        except Invalid as error:
            raise _unaskable(error) from None
        if execution.error is not None:
            return _took(execution, None, execution.error)
        try:
            return _took(execution, judged(execution.outputs or {}))
        except MetricFailed as failed:
            return _took(execution, None, failed=failed)

    async def aclose(self) -> None:
        """What is under way ends with its example."""


class SimilarityScorer:
    def __init__(
        self,
        spec: MetricSpec,
        evaluation_id: str,
        model: str,
        embeddings: Embeddings,
        cache: CachePolicy | None,
        cap: Cap | None = None,
    ) -> None:
        self._spec = spec
        self._evaluation_id = evaluation_id
        self._model = model
        self._embeddings = embeddings
        self._cache = cache
        self._cap = cap

    async def score(self, answered: Answered, principal: Principal) -> Scoring:
        pairs = pairs_of(self._spec, answered.expected, answered.outputs)
        # Providers refuse empty texts; one that is empty is like nothing but another.
        texts = tuple(dict.fromkeys(text for _, *both in pairs for text in both if text.strip()))
        vectors: dict[str, Sequence[float]] = {}
        execution: Execution | None = None
        if texts:
            order = EmbeddingOrder(
                principal,
                self._evaluation_id,
                self._model,
                texts,
                cache=self._cache,
                lane=LANE,
                cap=self._cap,
            )
            try:
                embedded = await self._embeddings.embed(order)
            except Invalid as error:
                raise _unaskable(error) from None
            execution = embedded.execution
            if isinstance(embedded.outcome, ExecutionError):
                return _took(execution, None, embedded.outcome)
            found = map(numbers, embedded.outcome.vectors)
            vectors = dict(zip(texts, found, strict=True))
        try:
            cosines = {
                name: cosine(vectors[one], vectors[other])
                if one in vectors and other in vectors
                else float(one.strip() == other.strip())
                for name, one, other in pairs
            }
        except MetricFailed as failed:
            return _took(execution, None, failed=failed)
        return _took(execution, similar(self._spec, cosines))

    async def aclose(self) -> None:
        """What is under way ends with its example."""


def _unaskable(error: Invalid) -> MetricFailed:
    """What is too large, or no text that a model could be sent."""
    return MetricFailed(f"The metric can't be asked: {error.message}", code=error.code)


def _took(
    execution: Execution | None,
    score: Score | None,
    error: ExecutionError | None = None,
    failed: MetricFailed | None = None,
) -> Scoring:
    if execution is None:
        return Scoring(score, error, failed)
    return Scoring(score, error, failed, cost_of(execution), calls_of(execution), tokens_of(execution))


# One for each, in order. Raises what ends the evaluation, or passes.
ScoreGroup = Callable[[Sequence[Answered], Principal], Awaitable[Sequence[Scoring]]]


class GroupScorer:
    """Metrics in Python: examples that come within some milliseconds go to a worker together."""

    GROUP, GATHER_S = 50, 0.02

    def __init__(self, run: ScoreGroup) -> None:
        self._run = run
        self._waiting: list[tuple[Answered, asyncio.Future[Scoring]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def score(self, answered: Answered, principal: Principal) -> Scoring:
        loop = asyncio.get_running_loop()
        place: asyncio.Future[Scoring] = loop.create_future()
        self._waiting.append((answered, place))
        if len(self._waiting) >= self.GROUP:
            self._begin(principal)
        elif self._timer is None:
            self._timer = loop.call_later(self.GATHER_S, self._begin, principal)
        return await place

    def _begin(self, principal: Principal) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        group, self._waiting = self._waiting, []
        task = asyncio.create_task(self._do(group, principal))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(
        self, group: list[tuple[Answered, "asyncio.Future[Scoring]"]], principal: Principal
    ) -> None:
        try:
            found = await self._run([one for one, _ in group], principal)
        except Exception as error:
            for _, place in group:
                if not place.done():
                    place.set_exception(error)
            return
        for (_, place), scoring in zip(group, found, strict=True):
            if not place.done():
                place.set_result(scoring)

    async def aclose(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
