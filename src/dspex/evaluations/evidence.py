"""What an evaluation says of a version that is to take another one's place."""

from collections.abc import Iterable

from msgspec import Struct

from dspex.evaluations.records import Numbers
from dspex.evaluations.rules import added

# Of the examples, those that nobody can say anything of: a model was down, a metric gave no score.
MOST_UNKNOWN = 0.05


class Evidence(Struct):
    """Takes results one by one.

    An example on which the program failed counts as 0, unlike in a report's mean: who asks gets no answer there. What
    was not answered from a cache has a cost, that of failures shared out among the examples with a score. What the
    metric itself asked models is no cost of a prediction; where nobody counted it apart, all counts.
    """

    scored: int = 0
    wrong: int = 0
    unknown: int = 0
    total: float = 0.0
    asked: int = 0
    cost_usd: float | None = 0.0

    def add(self, results: Iterable[Numbers]) -> None:
        for one in results:
            if one.score is not None:
                self.scored += 1
                self.total += one.score
            elif one.failure is not None and one.failure[0] == "program":
                self.wrong += 1
            else:
                self.unknown += 1
            if one.score is not None and not one.cached:
                self.asked += 1
            if not one.cached:
                self.cost_usd = added(self.cost_usd, _of_the_program(one))

    @property
    def examples(self) -> int:
        return self.scored + self.wrong + self.unknown

    @property
    def enough(self) -> bool:
        return self.scored > 0 and self.unknown <= MOST_UNKNOWN * self.examples

    @property
    def score(self) -> float | None:
        known = self.scored + self.wrong
        return round(self.total / known, 9) if known else None

    @property
    def cost_usd_per_call(self) -> float | None:
        return None if self.cost_usd is None or not self.asked else self.cost_usd / self.asked


def _of_the_program(one: Numbers) -> float | None:
    return added(one.cost_usd, -(one.metric_cost_usd or 0.0))
