"""DSPy's own optimizers find what the teachable tasks hide, and find nothing in shuffled labels."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import pytest

from dspex.providers.language_models.simulator.tasks import Split, task_rows
from dspex.providers.language_models.simulator.teaching import TASKS
from tests.conftest_simulator import running_simulator

TASK = TASKS["dates"]
Examples = list[Any]


def metric(example: Any, prediction: Any, *_: Any, **__: Any) -> float:
    return float(getattr(prediction, TASK.output, None) == example[TASK.output])


def graded(
    example: Any, prediction: Any, trace: Any = None, predictor: Any = None, predictor_trace: Any = None
) -> float:
    return metric(example, prediction)


def few_shot(program: Any, training: Examples, validation: Examples) -> Any:
    return dspy.BootstrapFewShot(metric=metric).compile(program, trainset=training)


def copro(program: Any, training: Examples, validation: Examples) -> Any:
    shown = {"num_threads": 2, "display_progress": False}
    return dspy.COPRO(metric=metric, breadth=4, depth=2).compile(
        program, trainset=training, eval_kwargs=shown
    )


def infer_rules(program: Any, training: Examples, validation: Examples) -> Any:
    optimizer = dspy.InferRules(metric=metric, num_candidates=2, num_rules=3, num_threads=2)
    return optimizer.compile(program, trainset=training, valset=validation)


def gepa(program: Any, training: Examples, validation: Examples) -> Any:
    optimizer = dspy.GEPA(metric=graded, max_metric_calls=120, reflection_lm=dspy.settings.lm, num_threads=2)
    return optimizer.compile(program, trainset=training, valset=validation)


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with running_simulator("--teach") as running:
        yield dspy.LM("openai/simulator", api_base=running.base_url, api_key="none", cache=False)


def examples(split: Split, count: int, *, shuffled: bool = False) -> Examples:
    rows = task_rows(TASK, split, count)
    labels = [row.outputs for row in rows]
    if shuffled:
        random.Random(0).shuffle(labels)
    return [
        dspy.Example(**row.inputs, **label).with_inputs(TASK.input)
        for row, label in zip(rows, labels, strict=True)
    ]


@pytest.mark.parametrize("optimize", [few_shot, copro, infer_rules, gepa])
def test_an_optimizer_raises_the_held_out_score(model: Any, optimize: Callable[..., Any]) -> None:
    score = dspy.Evaluate(devset=examples("test", 60), metric=metric, num_threads=2, display_progress=False)
    with dspy.context(lm=model):
        program = dspy.Predict(TASK.signature)
        found = optimize(program, examples("training", 30), examples("validation", 20))
        misled = optimize(
            program, examples("training", 30, shuffled=True), examples("validation", 20, shuffled=True)
        )
        baseline, optimized, control = (score(candidate).score for candidate in (program, found, misled))
    assert optimized > baseline + 15
    assert optimized > control
