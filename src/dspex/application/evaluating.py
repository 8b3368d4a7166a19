"""What evaluations need of the rest, put together: scorers, and what is checked of a metric's model."""

from collections.abc import Mapping, Sequence

from dspex.access.records import Principal
from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.evaluations.metrics.judging import JUDGE
from dspex.evaluations.metrics.records import MetricSpec
from dspex.evaluations.python_scoring import PythonMetrics
from dspex.evaluations.records import Evaluation
from dspex.evaluations.scoring import (
    Answered,
    GroupScorer,
    JudgeScorer,
    PureScorer,
    Scorer,
    Scoring,
    SimilarityScorer,
)
from dspex.executions.embedding import Embeddings
from dspex.executions.ports import Keeper
from dspex.executions.predictions import Predictions
from dspex.gateway.ports import Prices
from dspex.gateway.records import Usage
from dspex.kit.errors import Invalid, Problem
from dspex.programs.definitions import choose_model, define
from dspex.programs.records import ProgramSettings
from dspex.programs.rules import ADHOC


class Metrics:
    """`evaluations.scoring.MetricParts`."""

    def __init__(
        self,
        models: ModelRegistry,
        prices: Prices,
        predictions: Predictions,
        embeddings: Embeddings,
        python: PythonMetrics,
    ) -> None:
        self._models = models
        self._prices = prices
        self._predictions = predictions
        self._embeddings = embeddings
        self._python = python

    @property
    def registry(self) -> Mapping[str, ModelSettings]:
        return self._models.registry

    def check_model(self, metric: MetricSpec) -> str | None:
        """Raises Invalid: unknown_model, wrong_model_type."""
        try:
            if metric.name == "lm_judge":
                return choose_model(self._models, metric.model).alias
            return self._embedder(metric) if metric.name == "semantic_similarity" else None
        except Invalid as error:
            found = [Problem("/metric/model", one.code, one.message) for one in error.problems]
            raise Invalid(error.message, code=error.code, problems=found) from None

    def _embedder(self, metric: MetricSpec) -> str:
        known = [name for name, one in self._models.registry.items() if one.model_type == "embedding"]
        name = metric.model or (known[0] if known else None)
        if name is None:
            raise Invalid(
                "semantic_similarity needs an embedding model, and the registry has none; add one with `model_type: "
                "embedding`.",
                code="unknown_model",
                problems=[Problem("/model", "unknown_model", "there is no embedding model")],
            )
        if name not in self._models.registry:
            raise Invalid(
                f"There is no model {name!r}; the registry has {', '.join(sorted(self._models.registry))}.",
                code="unknown_model",
                problems=[Problem("/model", "unknown_model", "not in the model registry")],
            )
        if name not in known:
            raise Invalid(
                f"The model {name!r} writes text and embeds none; name an embedding model.",
                code="wrong_model_type",
                problems=[Problem("/model", "wrong_model_type", "is no embedding model")],
            )
        return name

    async def check_code(self, metric: MetricSpec, principal: Principal) -> None:
        if metric.reference is not None:
            await self._python.check(metric, principal, choose_model(self._models, None))

    async def priced(self, model: str) -> bool:
        return await self._prices.cost(model, Usage(1, 1, 2), None) is not None

    async def scorer(self, evaluation: Evaluation, keeper: Keeper) -> Scorer:
        """Raises Invalid for a model that is gone, Unavailable without a compiler for the judge."""
        metric = evaluation.metric
        match metric.name:
            case "lm_judge":
                definition = define(JUDGE, "predict", "chat", choose_model(self._models, metric.model))
                judge = await self._predictions.ready(
                    evaluation.project, ADHOC, definition, ProgramSettings()
                )
                return JudgeScorer(metric, evaluation.id, judge, self._predictions, keeper, evaluation.cache)
            case "semantic_similarity":
                model = self._embedder(metric)
                return SimilarityScorer(
                    metric, evaluation.id, model, self._embeddings, evaluation.cache, keeper.cap
                )
            case "python":
                lm = choose_model(self._models, None)

                async def run(group: Sequence[Answered], principal: Principal) -> Sequence[Scoring]:
                    return await self._python.run(evaluation, lm, group, principal, keeper)

                return GroupScorer(run)
        return PureScorer(metric)
