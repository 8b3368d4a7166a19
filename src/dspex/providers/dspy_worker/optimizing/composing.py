"""Builds what `composed` describes, from a definition."""

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from dspex.evaluations.metrics.reading import metric_of
from dspex.programs.records import COMPOSED
from dspex.providers.dspy_worker.building import Built, build
from dspex.providers.dspy_worker.composed import Composed, compose, underneath
from dspex.providers.dspy_worker.engines import GatewayLM
from dspex.providers.dspy_worker.optimizing.examples import examples_of
from dspex.providers.dspy_worker.optimizing.measuring import Metric
from dspex.providers.dspy_worker.running import Ready
from dspex.providers.dspy_worker.synchronous import synchronous


def composed(definition: Mapping[str, Any], state: Mapping[str, Any], base: Built) -> Composed:
    """`base` is the program underneath, for its types and its model. Raises Invalid (code bad_state)."""
    ready = Ready(base)

    def program(inner: Mapping[str, Any]) -> dspy.Module:
        return synchronous(build({**definition, "state": inner}).module)

    def examples(rows: Sequence[Mapping[str, Any]]) -> list[dspy.Example]:
        return examples_of(ready, rows, "/rows")

    def metric(document: Mapping[str, Any]) -> Metric:
        spec = metric_of(document)
        judge = base.lm if spec.model is None else model(spec.model)
        return Metric(spec, judge, spec.model or state[COMPOSED].get("embedder"))

    def model(alias: str) -> GatewayLM:
        # The node knows what it stands for.
        return GatewayLM(f"openai/{alias}", alias=alias)

    return compose(state, program, examples, metric, model)


def base_of(definition: Mapping[str, Any]) -> Built:
    """The program underneath a composed one."""
    return build({**definition, "state": underneath(definition["state"])})
