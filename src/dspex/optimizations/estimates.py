"""What an optimization asks of models, by the optimizers' own loops: pure arithmetic, low and high.

The formulas follow DSPy 3.4's sources; calls that a program makes count as one for each of its predictors. With
`cached` the low ends leave out what such a run is sure to ask a second time.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

# MIPROv2's `auto`: candidates and the most examples that a full evaluation takes (dspy.teleprompt.mipro_optimizer_v2).
_MIPRO_AUTO = {"light": (6, 100), "medium": (12, 300), "heavy": (18, 1000)}
# GEPA's `auto`: candidates.
_GEPA_AUTO = {"light": 6, "medium": 12, "heavy": 18}


class Sizes(Struct, frozen=True):
    """Rows of both sets, and predictors of the program. `judged`: each score takes a call of its own."""

    train: int
    validation: int
    predictors: int
    judged: bool = False
    cached: bool = False

    def runs(self, rows: float) -> float:
        """Calls of one run of the program for so many rows, with their scores."""
        return rows * (self.predictors + self.judged)

    @property
    def scoring(self) -> float:
        """Calls of one run over what is held out."""
        return self.runs(self.validation)

    @property
    def again(self) -> float:
        """Of these, how many another run of the same program takes at least."""
        return 0.0 if self.cached else self.scoring


class Range(Struct, frozen=True):
    low: float
    high: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.high + other.high)

    @property
    def up(self) -> "Range":
        return Range(math.ceil(self.low), math.ceil(self.high))


NONE = Range(0, 0)


class Work(Struct, frozen=True):
    """Calls: of the program as it is (`plain`), of programs that show so many `demos` (`shown`), and those that write

    instructions (`written`). `rewritten`: the optimizer changes instructions, which makes prompts longer.
    """

    plain: Range
    shown: Range = NONE
    demos: Range = NONE
    written: Range = NONE
    rewritten: bool = False

    @property
    def calls(self) -> Range:
        return (self.plain + self.shown + self.written).up


Formula = Callable[[Mapping[str, Any], Sizes], Work]


def work_of(optimizer: str, config: Mapping[str, Any], sizes: Sizes) -> Work | None:
    """With scoring the baseline and the result; None where nobody can say before."""
    formula = _FORMULAS.get(optimizer)
    return None if formula is None else formula(config, sizes)


def _option(config: Mapping[str, Any], name: str, default: float) -> float:
    value = config.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default


def _demos(config: Mapping[str, Any], sizes: Sizes) -> Range:
    """Labelled ones fill up what was bootstrapped."""
    bootstrapped = _option(config, "max_bootstrapped_demos", 4)
    labelled = _option(config, "max_labeled_demos", 16)
    return Range(min(labelled, sizes.train), min(max(bootstrapped, labelled), sizes.train))


def _bootstraps(config: Mapping[str, Any], sizes: Sizes) -> Range:
    demos = _option(config, "max_bootstrapped_demos", 4)
    rounds = max(_option(config, "max_rounds", 1), 1)
    return Range(sizes.runs(min(demos, sizes.train)), sizes.runs(sizes.train * rounds))


def _labelled(config: Mapping[str, Any], sizes: Sizes) -> Work:
    once, demos = Range(sizes.scoring, sizes.scoring), min(_option(config, "k", 16), sizes.train)
    return Work(once, once, Range(demos, demos))


def _neighbours(config: Mapping[str, Any], sizes: Sizes) -> Work:
    """Each question looks for its neighbours, which takes an embedding, and has the program answer them first."""
    k = min(_option(config, "k", 3), sizes.train)
    embedded = sizes.validation
    plain = Range(sizes.scoring + embedded, sizes.scoring + embedded + 1)
    rounds = max(_option(config, "max_rounds", 1), 1)
    shown = Range(sizes.scoring, sizes.scoring + sizes.runs(sizes.validation * k * rounds))
    return Work(plain, shown, Range(min(k, 1), k))


def _bootstrap(config: Mapping[str, Any], sizes: Sizes) -> Work:
    once = Range(sizes.scoring, sizes.scoring)
    return Work(once, once + _bootstraps(config, sizes), _demos(config, sizes))


def _random_search(config: Mapping[str, Any], sizes: Sizes) -> Work:
    """Candidates: none shown, labelled ones, bootstrapped ones, and so many of these with other rows."""
    candidates = _option(config, "num_candidate_programs", 16)
    once, scoring = _bootstraps(config, sizes), sizes.scoring
    # It ends early with a score that is good enough.
    tried = 0 if config.get("stop_at_score") is not None else scoring * (candidates + 2)
    plain = Range(scoring + sizes.again, 2 * scoring)
    shown = Range(tried + once.low + sizes.again, scoring * (candidates + 3) + once.high * (candidates + 1))
    return Work(plain, shown, _demos(config, sizes))


def _copro(config: Mapping[str, Any], sizes: Sizes) -> Work:
    breadth, depth = _option(config, "breadth", 10), _option(config, "depth", 3)
    tried = breadth * depth * sizes.predictors
    scored = Range(sizes.runs(sizes.train), tried * sizes.runs(sizes.train))
    plain = Range(sizes.scoring, 2 * sizes.scoring) + scored
    return Work(plain, written=Range(depth * sizes.predictors, tried), rewritten=True)


def _mipro(config: Mapping[str, Any], sizes: Sizes) -> Work:
    auto = config.get("auto", "light")
    candidates, most = _MIPRO_AUTO.get(str(auto), (_option(config, "num_candidates", 6), sizes.validation))
    rows = min(sizes.validation, most)
    variables = sizes.predictors * 2
    trials = max(2 * variables * math.log2(max(candidates, 2)), 1.5 * candidates)
    trials = _option(config, "num_trials", trials) if auto is None else trials
    proposals = candidates * sizes.predictors * 2 + 5
    minibatch = config.get("minibatch", True) is not False
    batch = min(_option(config, "minibatch_size", 35), rows)
    if minibatch and rows > batch:
        full = trials / max(_option(config, "minibatch_full_eval_steps", 5), 1) + 2
        evaluated = sizes.runs(batch) * trials + sizes.runs(rows) * full
    else:
        evaluated = sizes.runs(rows) * (trials + 1)
    bootstraps = _bootstraps(config, sizes)
    scoring = Range(sizes.again, sizes.scoring)
    shown = Range(evaluated * 0.5 + bootstraps.low, evaluated + bootstraps.high * candidates) + scoring
    most_shown = max(_option(config, "max_bootstrapped_demos", 4), _option(config, "max_labeled_demos", 4))
    return Work(
        Range(sizes.scoring, sizes.scoring),
        shown,
        Range(0, min(most_shown, sizes.train)),
        Range(candidates * sizes.predictors, proposals),
        rewritten=True,
    )


def _simba(config: Mapping[str, Any], sizes: Sizes) -> Work:
    """Each step samples with all models, then tries one candidate more than there are; the winners end on all rows."""
    steps, batch = _option(config, "max_steps", 8), _option(config, "bsize", 32)
    candidates = _option(config, "num_candidates", 6)
    once = sizes.runs(min(batch, sizes.train))
    final = sizes.runs(sizes.train) * (steps + 1)
    shown = Range(steps * once * candidates, steps * once * (2 * candidates + 1) + final)
    return Work(
        Range(sizes.scoring, sizes.scoring),
        shown + Range(sizes.scoring, sizes.scoring),
        Range(0, _option(config, "max_demos", 4)),
        Range(0, 2 * steps * (candidates + 1)),
        rewritten=True,
    )


def _gepa(config: Mapping[str, Any], sizes: Sizes) -> Work:
    whole = sizes.validation or sizes.train
    most = config.get("max_metric_calls")
    if most is None and (full := config.get("max_full_evals")) is not None:
        most = _option({"n": full}, "n", 1) * (sizes.train + sizes.validation)
    if most is None:
        candidates = _GEPA_AUTO.get(str(config.get("auto", "light")), 6)
        trials = max(2 * sizes.predictors * 2 * math.log2(candidates), 1.5 * candidates)
        most = whole + candidates * 5 + trials * 35 + (trials / 5 + 1) * whole
    reflections = float(most) / max(_option(config, "reflection_minibatch_size", 3), 1) / 2
    asked = Range(0 if sizes.cached else sizes.runs(min(whole, float(most))), sizes.runs(float(most)))
    scored = Range(sizes.scoring + sizes.again, 2 * sizes.scoring)
    return Work(scored + asked, written=Range(0, reflections), rewritten=True)


def _rules(config: Mapping[str, Any], sizes: Sizes) -> Work:
    """Rules of two candidates may be the same."""
    candidates = _option(config, "num_candidates", 10)
    tried = Range((0.5 if sizes.cached else 1.0) * sizes.scoring * candidates, sizes.scoring * candidates)
    return Work(
        Range(sizes.scoring, sizes.scoring),
        tried + _bootstraps(config, sizes) + Range(sizes.again, sizes.scoring),
        _demos(config, sizes),
        Range(1, 2 * candidates * sizes.predictors),
        rewritten=True,
    )


_FORMULAS: Mapping[str, Formula] = {
    "LabeledFewShot": _labelled,
    "KNNFewShot": _neighbours,
    "BootstrapFewShot": _bootstrap,
    "BootstrapFewShotWithRandomSearch": _random_search,
    "COPRO": _copro,
    "MIPROv2": _mipro,
    "SIMBA": _simba,
    "GEPA": _gepa,
    "InferRules": _rules,
}
