"""What an evaluation shows a gate."""

import pytest

from dspex.evaluations.evidence import Evidence
from dspex.evaluations.records import Numbers, Origin


def scored(
    score: float = 1.0, cost_usd: float | None = 0.25, *, cached: bool = False, metric_usd: float | None = 0.0
) -> Numbers:
    return Numbers(1, score, None, 1.0, cost_usd, metric_usd, cached, 1, 10)


def failed(origin: Origin, cost_usd: float | None = 0.0) -> Numbers:
    return Numbers(1, None, (origin, "x"), 1.0, cost_usd, 0.0, False, 0, 0)


def of(*results: Numbers) -> Evidence:
    found = Evidence()
    found.add(results)
    return found


def test_what_the_program_failed_on_counts_as_nothing_right() -> None:
    found = of(scored(), *[failed("program")] * 9)
    assert (found.score, found.enough, found.examples) == (0.1, True, 10)


@pytest.mark.parametrize(("origin", "count", "enough"), [("infrastructure", 1, True), ("metric", 2, False)])
def test_what_nobody_can_tell_is_left_out_and_may_be_little(origin: Origin, count: int, enough: bool) -> None:
    found = of(*[scored(0.5)] * (20 - count), *[failed(origin)] * count)
    assert (found.score, found.enough, found.examples) == (0.5, enough, 20)


def test_nothing_scored_is_nothing_shown() -> None:
    assert not of().enough
    assert not of(*[failed("program")] * 5).enough
    assert of().score is None


def test_answers_from_a_cache_say_nothing_of_costs() -> None:
    assert of(scored(), scored(cost_usd=0.0, cached=True)).cost_usd_per_call == 0.25
    assert of(scored(cost_usd=0.0, cached=True)).cost_usd_per_call is None
    assert of(scored(), scored(cost_usd=None)).cost_usd_per_call is None
    # Who asks until there is an answer pays for the failures as well.
    assert of(scored(), failed("program", 0.25)).cost_usd_per_call == 0.5


def test_what_the_metric_asked_is_no_cost_of_a_prediction() -> None:
    assert (
        of(scored(cost_usd=1.0, metric_usd=0.75), scored(cost_usd=0.75, metric_usd=0.0)).cost_usd_per_call
        == 0.5
    )
    # Of before it was counted apart.
    assert of(scored(cost_usd=1.0, metric_usd=None)).cost_usd_per_call == 1.0
    assert of(scored(cost_usd=None, metric_usd=0.75)).cost_usd_per_call is None
