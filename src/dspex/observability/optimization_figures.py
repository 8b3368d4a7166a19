"""Figures of all optimizations that ended, as the database has them: the workers that ran them show no metrics."""

from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from dspex.optimizations.records import Ended

# Minutes and hours.
DURATION_S = (30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0)
SCORE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
STATUS = {"completed": "success", "failed": "error"}
Labels = tuple[str, str]


class Spread(Struct):
    """A histogram: how many were not above each bound, and what all add up to."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.sum += value
        self.counts[next((at for at, bound in enumerate(self.bounds) if value <= bound), -1)] += 1

    def cumulative(self) -> Iterator[tuple[str, float]]:
        total = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            yield bound, total


class OptimizationFigures:
    """By optimizer and status; scores by optimizer, of "baseline" and "result", where both are known."""

    def __init__(self) -> None:
        self.ended: Counter[Labels] = Counter()
        self.durations: dict[Labels, Spread] = {}
        self.scores: dict[Labels, Spread] = {}

    def add(self, ended: Iterable[Ended]) -> None:
        for one in ended:
            labels = (one.optimizer, STATUS.get(one.state, one.state))
            self.ended[labels] += 1
            if one.started_at is not None:
                took = (one.completed_at - one.started_at).total_seconds()
                self.durations.setdefault(labels, Spread(DURATION_S)).add(max(took, 0.0))
            if one.baseline_score is not None and one.score is not None:
                for of, score in (("baseline", one.baseline_score), ("result", one.score)):
                    self.scores.setdefault((one.optimizer, of), Spread(SCORE)).add(score)
