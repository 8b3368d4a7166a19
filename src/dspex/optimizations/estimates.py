"""How many model calls an optimization takes, by the optimizers' own loops: pure arithmetic, low and high.

The formulas follow DSPy 3.4's sources; calls that a program makes count as one for each of its predictors. What a cache
answers is not taken off.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# MIPROv2's `auto`: candidates and the most examples that a full evaluation takes (dspy.teleprompt.mipro_optimizer_v2).
_MIPRO_AUTO = {"light": (6, 100), "medium": (12, 300), "heavy": (18, 1000)}
# GEPA's `auto`: candidates.
_GEPA_AUTO = {"light": 6, "medium": 12, "heavy": 18}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows of both sets, and predictors of the program. `judged`: each score takes a call of its own."""

    train: int
    validation: int
    predictors: int
    judged: bool = False

    def runs(self, rows: float) -> float:
        """Calls of one run of the program for so many rows, with their scores."""
        return rows * (self.predictors + self.judged)


@dataclass(frozen=True, slots=True)
class Range:
    low: float
    high: float

    def plus(self, low: float, high: float | None = None) -> "Range":
        return Range(self.low + low, self.high + (low if high is None else high))


Formula = Callable[[Mapping[str, Any], Sizes], Range]


def calls_of(optimizer: str, config: Mapping[str, Any], sizes: Sizes) -> Range | None:
    """With scoring the baseline and the result; None where nobody can say before."""
    formula = _FORMULAS.get(optimizer)
    if formula is None:
        return None
    found = formula(config, sizes).plus(2 * sizes.runs(sizes.validation))
    return Range(math.ceil(found.low), math.ceil(found.high))


def _option(config: Mapping[str, Any], name: str, default: float) -> float:
    value = config.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default


def _nothing(config: Mapping[str, Any], sizes: Sizes) -> Range:
    return Range(0, 0)


def _bootstrap(config: Mapping[str, Any], sizes: Sizes) -> Range:
    demos = _option(config, "max_bootstrapped_demos", 4)
    rounds = max(_option(config, "max_rounds", 1), 1)
    return Range(sizes.runs(min(demos, sizes.train)), sizes.runs(sizes.train * rounds))


def _random_search(config: Mapping[str, Any], sizes: Sizes) -> Range:
    candidates = _option(config, "num_candidate_programs", 16)
    once = _bootstrap(config, sizes)
    evaluated = sizes.runs(sizes.validation) * (candidates + 3)
    return Range(evaluated + once.low, evaluated + once.high * (candidates + 1))


def _copro(config: Mapping[str, Any], sizes: Sizes) -> Range:
    breadth, depth = _option(config, "breadth", 10), _option(config, "depth", 3)
    tried = breadth * depth * sizes.predictors
    return Range(depth * sizes.predictors + sizes.runs(sizes.train), tried + tried * sizes.runs(sizes.train))


def _mipro(config: Mapping[str, Any], sizes: Sizes) -> Range:
    auto = config.get("auto", "light")
    candidates, most = _MIPRO_AUTO.get(str(auto), (_option(config, "num_candidates", 6), sizes.validation))
    rows = min(sizes.validation, most)
    variables = sizes.predictors * 2
    trials = max(2 * variables * math.log2(max(candidates, 2)), 1.5 * candidates)
    trials = _option(config, "num_trials", trials) if auto is None else trials
    proposals = candidates * sizes.predictors * 2 + 5
    bootstraps = _bootstrap(config, sizes)
    minibatch = config.get("minibatch", True) is not False
    batch = min(_option(config, "minibatch_size", 35), rows)
    if minibatch and rows > batch:
        full = trials / max(_option(config, "minibatch_full_eval_steps", 5), 1) + 2
        evaluated = sizes.runs(batch) * trials + sizes.runs(rows) * full
    else:
        evaluated = sizes.runs(rows) * (trials + 1)
    return Range(
        evaluated * 0.5 + proposals + bootstraps.low, evaluated + proposals + bootstraps.high * candidates
    )


def _simba(config: Mapping[str, Any], sizes: Sizes) -> Range:
    steps, batch = _option(config, "max_steps", 8), _option(config, "bsize", 32)
    candidates = _option(config, "num_candidates", 6)
    once = sizes.runs(min(batch, sizes.train)) * candidates
    final = sizes.runs(sizes.train) * (steps + 1)
    return Range(steps * once, steps * (2 * once + candidates) + final)


def _gepa(config: Mapping[str, Any], sizes: Sizes) -> Range:
    whole = sizes.validation or sizes.train
    most = config.get("max_metric_calls")
    if most is None and (full := config.get("max_full_evals")) is not None:
        most = _option({"n": full}, "n", 1) * (sizes.train + sizes.validation)
    if most is None:
        candidates = _GEPA_AUTO.get(str(config.get("auto", "light")), 6)
        trials = max(2 * sizes.predictors * 2 * math.log2(candidates), 1.5 * candidates)
        most = whole + candidates * 5 + trials * 35 + (trials / 5 + 1) * whole
    reflections = float(most) / max(_option(config, "reflection_minibatch_size", 3), 1) / 2
    return Range(sizes.runs(min(whole, float(most))), sizes.runs(float(most)) + reflections)


def _rules(config: Mapping[str, Any], sizes: Sizes) -> Range:
    candidates = _option(config, "num_candidates", 10)
    evaluated = sizes.runs(sizes.validation) * candidates
    once = _bootstrap(config, sizes)
    return Range(evaluated + once.low, evaluated + once.high + candidates * sizes.predictors)


_FORMULAS: Mapping[str, Formula] = {
    "LabeledFewShot": _nothing,
    "KNNFewShot": _nothing,
    "BootstrapFewShot": _bootstrap,
    "BootstrapFewShotWithRandomSearch": _random_search,
    "COPRO": _copro,
    "MIPROv2": _mipro,
    "SIMBA": _simba,
    "GEPA": _gepa,
    "InferRules": _rules,
}
