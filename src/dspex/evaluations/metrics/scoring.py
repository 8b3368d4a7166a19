"""Scores of the metrics that need nothing but the two sides."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from dspex.evaluations.metrics import comparing
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import MetricSpec, Score

_MEASURES: Final[Mapping[str, Callable[[Any, Any], float]]] = {
    "exact_match": comparing.exact_match,
    "f1": comparing.f1,
    "contains": comparing.contains,
}


def score(spec: MetricSpec, expected: Mapping[str, Any], outputs: Mapping[str, Any]) -> float:
    """0..1: the mean over the fields of a pure metric. Values are JSON. Raises as `scored`."""
    return scored(spec, expected, outputs).value


def scored(spec: MetricSpec, expected: Mapping[str, Any], outputs: Mapping[str, Any]) -> Score:
    """With the score of each field. An output that is not there is a wrong one.

    Raises MetricFailed (code not_labelled) when the example has no label for a field, or none at all.
    """
    measure = _MEASURES[spec.name]
    return mean_of(
        {
            name: measure(expected[name], outputs[name]) if name in outputs else 0.0
            for name in fields_of(spec, expected)
        }
    )


def fields_of(spec: MetricSpec, expected: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of an example that are looked at. Raises MetricFailed (code not_labelled)."""
    fields = spec.fields or tuple(expected)
    lacking = [name for name in fields if name not in expected]
    if lacking or not fields:
        what = f"no label for {', '.join(lacking)}" if lacking else "no label"
        raise MetricFailed(f"The example has {what}: there is nothing to score by.", code="not_labelled")
    return fields


def mean_of(fields: Mapping[str, float]) -> Score:
    return Score(math.fsum(fields.values()) / len(fields), dict(fields))
