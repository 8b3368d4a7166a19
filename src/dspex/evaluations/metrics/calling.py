"""Metrics in Python, called as DSPy and its optimizers call them."""

import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any

from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import Score

LONGEST_TEXT = 2000
LONGEST_FEEDBACK = 10_000
# What else a metric may ask for, beside the example and the prediction: GEPA's metrics ask for all of it.
_MORE = ("trace", "pred_name", "pred_trace")


def call_metric(
    metric: Callable[..., Any], example: Any, prediction: Any, more: Mapping[str, Any] = MappingProxyType({})
) -> Score:
    """metric(example, prediction, trace=None), and GEPA's form of it, as far as it takes these.

    Only an optimizer has `more` of them: `trace`, `pred_name`, `pred_trace`; elsewhere they are None. Raises
    MetricFailed when it raises, or gives what is no finite number; what is no Exception passes.
    """
    try:
        given = metric(
            example, prediction, **{name: more.get(what) for name, what in _asked_for(metric).items()}
        )
    except Exception as error:
        raise MetricFailed(
            f"The metric raised {type(error).__name__}: {str(error)[:LONGEST_TEXT]}", code="metric_failed"
        ) from error
    return read_score(given)


def read_score(given: Any) -> Score:
    """Of true, false, a finite number, or an object or mapping with a `score` of these and perhaps `feedback`.

    Raises MetricFailed (code bad_score).
    """
    feedback = None
    if isinstance(given, Mapping):
        given, feedback = given.get("score"), given.get("feedback")
    elif not isinstance(given, Real) and hasattr(given, "score"):
        given, feedback = given.score, getattr(given, "feedback", None)
    return Score(_number(given), feedback=None if feedback is None else str(feedback)[:LONGEST_FEEDBACK])


def _number(given: Any) -> float:
    if type(given).__module__ == "numpy" and getattr(given, "ndim", 1) == 0:
        given = given.item()
    if not isinstance(given, bool | Real):
        raise MetricFailed(
            f"The metric returned a {type(given).__name__}; it has to return true, false or a number.",
            code="bad_score",
        )
    try:
        value = float(given)
    except (OverflowError, ValueError):
        value = math.inf
    if not math.isfinite(value):
        raise MetricFailed("The metric returned a number that is not finite.", code="bad_score")
    return value


def _asked_for(metric: Callable[..., Any]) -> dict[str, str]:
    """Which of _MORE each further parameter is: by its name, or by its place, whatever a metric calls it."""
    try:
        parameters = list(inspect.signature(metric).parameters.values())[2:]
    except (TypeError, ValueError):
        return {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        one.name: one.name if one.name in _MORE else "".join(_MORE[place : place + 1])
        for place, one in enumerate(parameters)
        if one.kind in named and (one.name in _MORE or one.default is one.empty)
    }
