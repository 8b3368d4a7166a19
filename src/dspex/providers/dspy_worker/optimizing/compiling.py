"""The call of one optimizer: its constructor and its `compile`, with what each takes by name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dspy
from dspy.teleprompt import SIMBA
from msgspec import Struct

from dspex.providers.dspy_worker.embedders import GatewayEmbedder
from dspex.providers.dspy_worker.optimizing.catalogue import RECIPES, Recipe
from dspex.providers.dspy_worker.optimizing.measuring import Metric
from dspex.providers.dspy_worker.optimizing.watching import Watch


class Given(Struct, frozen=True):
    """What an optimizer is given beside its configuration. `model` makes the language model of an alias."""

    student: dspy.Module
    train: Sequence[dspy.Example]
    validation: Sequence[dspy.Example]
    metric: Metric
    seed: int
    threads: int
    model: Callable[[str], Any]
    watch: Watch | None = None


def make(optimizer: str, config: Mapping[str, Any], given: Given) -> Any:
    """The optimizer, with DSPy's own complaints."""
    recipe = RECIPES[optimizer]
    if optimizer == "BetterTogether":
        inner = {
            key: make(one["optimizer"], one["config"], given) for key, one in config["optimizers"].items()
        }
        return recipe.kind(_metric(optimizer, given), **inner)
    arguments = _arguments(recipe.kind.__init__, optimizer, config, given)
    for name in recipe.more:
        if name in config and name not in ("embedder", "programs", "reduce", "field"):
            arguments[name] = _value(recipe, name, config[name], given)
    if any(one.kind is one.VAR_KEYWORD for one in _signature(recipe.kind.__init__)) and recipe.metric:
        arguments["metric"] = _metric(optimizer, given)
    if optimizer == "GEPA" and given.watch is not None:
        arguments["gepa_kwargs"] = {"callbacks": [given.watch]}
    return recipe.kind(**arguments)


def compiled(optimizer: str, config: Mapping[str, Any], given: Given) -> dspy.Module:
    made = make(optimizer, config, given)
    arguments = _arguments(made.compile, optimizer, config, given)
    if optimizer == "BetterTogether":
        arguments["optimizer_compile_args"] = {
            key: {
                name: value
                for name, value in _arguments(
                    made.optimizers[key].compile, one["optimizer"], one["config"], given
                ).items()
                if name not in ("student", "trainset", "valset")
            }
            for key, one in config["optimizers"].items()
        }
    found: dspy.Module = made.compile(**arguments)
    return found


def fitted(optimizer: str, config: Mapping[str, Any], given: Given) -> dict[str, Any]:
    """The configuration with the sizes that follow from the rows, where it says none (`Recipe.of_rows`)."""
    effective = dict(config)
    if optimizer == "SIMBA":
        effective.setdefault("bsize", min(_default(SIMBA.__init__, "bsize"), len(given.train)))
    if optimizer == "MIPROv2" and "auto" in config and config["auto"] is None:
        # Without a validation set DSPy takes four fifths of the others.
        scored = len(given.validation) or int(len(given.train) * 0.8)
        effective.setdefault("minibatch", scored > config["minibatch_size"])
    if optimizer == "BetterTogether":
        effective["optimizers"] = {
            key: {**one, "config": fitted(one["optimizer"], one["config"], given)}
            for key, one in config["optimizers"].items()
        }
    return effective


def _default(function: Callable[..., Any], name: str) -> Any:
    return inspect.signature(function).parameters[name].default


def _arguments(
    function: Callable[..., Any], optimizer: str, config: Mapping[str, Any], given: Given
) -> dict[str, Any]:
    recipe = RECIPES[optimizer]
    ours: dict[str, Any] = {
        "student": given.student,
        "trainset": list(given.train),
        "valset": list(given.validation) or None,
        "metric": _metric(optimizer, given),
        "seed": given.seed,
        "num_threads": given.threads,
        "eval_kwargs": {"num_threads": given.threads, "display_progress": False},
    }
    arguments = {}
    for one in _signature(function):
        if one.name in config and one.name not in ours:
            arguments[one.name] = _value(recipe, one.name, config[one.name], given)
        elif one.name in ours:
            arguments[one.name] = ours[one.name]
        elif one.name == "vectorizer":
            arguments["vectorizer"] = GatewayEmbedder(config["embedder"])
    if optimizer == "GEPA" and "reflection_lm" in [one.name for one in _signature(function)]:
        arguments.setdefault("reflection_lm", dspy.settings.lm)
    return arguments


def _metric(optimizer: str, given: Given) -> Any:
    watch = given.watch
    if optimizer == "GEPA":
        return given.metric.with_feedback
    if watch is None:
        return given.metric

    def metric(example: Any, prediction: Any, trace: Any = None, *more: Any, **named: Any) -> float:
        found = given.metric(example, prediction, trace, *more, **named)
        watch.scored(found)
        return found

    return metric


def _value(recipe: Recipe, name: str, value: Any, given: Given) -> Any:
    if name in recipe.models:
        return given.model(value)
    if name == "teacher_settings":
        return {"lm": given.model(value["lm"])}
    return value


def _signature(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return [one for one in inspect.signature(function).parameters.values() if one.name != "self"]
