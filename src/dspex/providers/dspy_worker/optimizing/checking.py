"""Whether an optimizer takes a configuration and a program, before anything is paid for."""

from collections.abc import Mapping
from typing import Any

import dspy

from dspex.kit.errors import Invalid
from dspex.providers.dspy_worker.building import build
from dspex.providers.dspy_worker.composed import composition_of
from dspex.providers.dspy_worker.optimizing.catalogue import RECIPES
from dspex.providers.dspy_worker.optimizing.compiling import Given, make
from dspex.providers.dspy_worker.optimizing.configuring import bad, configured
from dspex.providers.dspy_worker.optimizing.measuring import Metric


def check(
    definition: Mapping[str, Any],
    optimizer: str,
    config: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """{"config", "predictors", "takes"}. Raises Invalid, Unavailable; what users' code raises comes through."""
    effective = configured(optimizer, config, models)
    recipe = RECIPES[optimizer]
    built = build(definition)
    names = optimizable(built.module, definition)
    with dspy.context(lm=built.lm, adapter=built.adapter):
        given = Given(built.module, (), (), _Unasked(), 0, 1, lambda _: built.lm)
        if optimizer not in ("KNNFewShot", "Ensemble"):
            try:
                make(optimizer, effective, given)
            except (ValueError, AssertionError, TypeError) as refused:
                raise bad(optimizer, "/config", f"{optimizer} refuses it: {refused}") from None
        if optimizer == "Ensemble":
            for number, state in enumerate(effective["programs"]):
                _fits(definition, state, f"/config/programs/{number}")
    takes = {
        "validation": recipe.validation,
        "metric": recipe.metric,
        "candidates": recipe.scores != "none",
        "fine_tuning": tunes(optimizer, effective),
    }
    return {"config": effective, "predictors": names, "takes": takes}


def tunes(optimizer: str, config: Mapping[str, Any]) -> bool:
    """Whether models are fine-tuned, which not every node can have done."""
    inner = [one["optimizer"] for one in config.get("optimizers", {}).values()]
    return "BootstrapFinetune" in (optimizer, *inner)


class _Unasked(Metric):
    """In the place of a metric, for optimizers that are only made."""

    def __init__(self) -> None:
        self.failure = None


def optimizable(module: dspy.Module, definition: Mapping[str, Any]) -> list[str]:
    if definition.get("mock") is not None:
        why = "it is a mock, which asks no model"
    elif composition_of(definition.get("state")) is not None:
        why = "it was composed by an optimizer already; optimize the version that it was made of"
    else:
        names = [name for name, _ in module.named_predictors()]
        if names:
            return names
        why = "it has no dspy.Predict that could be given instructions or demonstrations"
    raise Invalid(f"This program can't be optimized: {why}.", code="not_optimizable")


def _fits(definition: Mapping[str, Any], state: Mapping[str, Any], pointer: str) -> None:
    try:
        build({**definition, "state": state})
    except Exception as error:
        raise bad("Ensemble", pointer, f"is no state of this program: {error}") from None
