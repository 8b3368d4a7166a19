"""An evaluation asks the models that it was ordered with: a mean over the answers of two says nothing of either."""

from collections.abc import Mapping
from typing import Any

from dspex.configuration.models import ModelSettings
from dspex.executions.catalog import Runnable
from dspex.executions.mock import Mock
from dspex.executions.records import Execution
from dspex.gateway.errors import model_changed
from dspex.kit.errors import Conflict

WHAT = "evaluation"
Registry = Mapping[str, ModelSettings]


def asked_by(runnable: Runnable) -> set[str]:
    """The aliases that a program is known to ask; code of its own may ask others."""
    return set() if isinstance(runnable.run, Mock) else set(runnable.models.values())


def order_of(registry: Registry, metric_asks: str | None) -> dict[str, Any]:
    """What an evaluation's job remembers: what each alias stands for, and the one that its metric asks."""
    models = {alias: [one.model, one.api_base] for alias, one in registry.items()}
    return {"models": models, "metric_asks": metric_asks}


class Models:
    """The models of an evaluation as they were ordered, against what its worker has now.

    `order` is as `order_of` has it. Jobs of before it was kept know nothing, and are held to nothing.
    """

    def __init__(self, order: Mapping[str, Any], registry: Registry) -> None:
        self._metric_asked = order.get("metric_asks")
        self._registry = registry
        self._changed: dict[str, Conflict] = {}
        for alias, (model, address) in (order.get("models") or {}).items():
            now = registry.get(alias)
            means = None if now is None else (now.model, now.api_base)
            if means != (model, address):
                self._changed[alias] = model_changed(WHAT, alias, (model, address), means)

    def check(self, runnable: Runnable, metric_asks: str | None) -> None:
        """Before anything is asked. Raises Conflict (code model_changed) for a model that is, or that may stand in."""
        if self._metric_asked is not None and metric_asks != self._metric_asked:
            raise Conflict(
                f"The metric asked the model {self._metric_asked!r} when this evaluation was ordered, and would ask "
                f"{metric_asks!r} now: scores of both would be mixed. Let `models` say again what it said and retry "
                "the job, or order a new evaluation, with a metric that names its model.",
                code="model_changed",
            )
        for alias in sorted(asked_by(runnable) | ({metric_asks} if metric_asks else set())):
            now = self._registry.get(alias)
            for one in (alias, *(now.fallbacks if now is not None else ())):
                if one in self._changed:
                    raise self._changed[one]

    def changed_in(self, execution: Execution) -> Conflict | None:
        """The error of the first call that another model answered: users' code asks whom it wants."""
        return next(
            (self._changed[call["model"]] for call in execution.calls if call.get("model") in self._changed),
            None,
        )
