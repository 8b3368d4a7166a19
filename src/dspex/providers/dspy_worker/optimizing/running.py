"""One optimization in a worker: everything it needs is made, then it takes its course."""

import random
from collections.abc import Mapping
from typing import Any

import dspy
import numpy as np

from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.reading import metric_of
from dspex.kit.errors import Invalid
from dspex.providers.dspy_worker.building import PARAMETERS, Built, build
from dspex.providers.dspy_worker.engines import SETTING, GatewayLM
from dspex.providers.dspy_worker.modules import provider_model, without_lms
from dspex.providers.dspy_worker.optimizing.catalogue import RECIPES
from dspex.providers.dspy_worker.optimizing.checking import optimizable, tunes
from dspex.providers.dspy_worker.optimizing.compiling import Given
from dspex.providers.dspy_worker.optimizing.conversation import BudgetSpent, OptimizingConversation
from dspex.providers.dspy_worker.optimizing.course import Course
from dspex.providers.dspy_worker.optimizing.examples import Origins, examples_of
from dspex.providers.dspy_worker.optimizing.measuring import Metric
from dspex.providers.dspy_worker.optimizing.task import Task
from dspex.providers.dspy_worker.optimizing.watching import Tell, Watch
from dspex.providers.dspy_worker.running import Ready
from dspex.providers.dspy_worker.synchronous import synchronous


class Optimization:
    """Runs in a thread of its own; DSPy's threads inherit the settings."""

    def __init__(self, task: Task, conversation: OptimizingConversation, tell: Tell) -> None:
        self._task = task
        self._conversation = conversation
        self._tell = tell

    def run(self) -> dict[str, Any]:
        """The document of `Optimized`. Raises DspexError, CallFailed when the budget ended before a first score.

        A metric that can't score is its author's to mend: Invalid, with the code of `MetricFailed`.
        """
        try:
            return self._run()
        except BudgetSpent as spent:
            raise spent.failed from None
        except MetricFailed as failed:
            raise Invalid(failed.message, code=failed.code) from failed

    def _run(self) -> dict[str, Any]:
        task = self._task
        random.seed(task.seed)
        np.random.seed(task.seed % 2**32)
        settings: dict[str, Any] = {SETTING: self._conversation, PARAMETERS: {}}
        with dspy.context(**settings):
            built = build(task.definition)
        optimizable(built.module, task.definition)
        if tunes(task.optimizer, task.config) and not task.fine_tunes:
            raise Invalid(
                f"{task.optimizer} fine-tunes models, which this node does not have done; use an optimizer of prompts.",
                code="fine_tuning_unavailable",
            )
        ready = Ready(built)
        student = synchronous(built.module)
        train = examples_of(ready, task.train, "/train")
        validation = examples_of(ready, task.validation, "/validation")
        origins = Origins(task.train, train)
        metric = self._metric(built, origins)
        full = len(validation) if validation and RECIPES[task.optimizer].validation else len(train)
        before = without_lms(student.dump_state())
        signatures = {name: one.signature for name, one in student.named_predictors()}
        watch = Watch(
            self._tell,
            student,
            full,
            _candidates(task.optimizer, task.config),
            validation or train,
            # Optimizers in it score by sets of their own as well.
            by_set=task.optimizer == "BetterTogether",
            origins=lambda state: origins.demos(state, before, signatures),
        )
        settings |= {
            "lm": built.lm,
            "adapter": built.adapter,
            "disable_history": True,
            "trace": [],
            "warn_on_type_mismatch": False,
            "num_threads": task.threads,
            "callbacks": [watch],
        }
        given = Given(student, train, validation, metric, task.seed, task.threads, self._model, watch)
        with dspy.context(**settings):
            return Course(task, built, given, watch, origins, self._conversation, self._tell).result()

    def _metric(self, built: Built, origins: Origins) -> Metric:
        spec = metric_of(self._task.metric)
        embedder = spec.model or next(
            (alias for alias, one in self._task.models.items() if one["type"] == "embedding"), None
        )
        judge = self._model(spec.model) if spec.name == "lm_judge" and spec.model else built.lm
        return Metric(spec, judge, embedder, origins)

    def _model(self, alias: str) -> GatewayLM:
        one = self._task.models.get(alias)
        if one is None:
            raise Invalid(f"There is no model {alias!r} in models.registry.", code="unknown_model")
        return GatewayLM(provider_model(one["model"]), alias=alias, **one["options"])


def _candidates(optimizer: str, config: Mapping[str, Any]) -> int | None:
    """How many candidates there will be, where that is known before."""
    match optimizer:
        case "BootstrapFewShotWithRandomSearch":
            restricted = config.get("restrict")
            return config["num_candidate_programs"] + 3 if restricted is None else len(restricted)
        case "InferRules":
            return int(config["num_candidates"])
    return None
