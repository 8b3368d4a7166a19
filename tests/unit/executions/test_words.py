"""What executions say of themselves: times, and why nothing fits a filter."""

from datetime import UTC, datetime

import pytest

from dspex.executions.feedback.records import ExampleFilter
from dspex.executions.feedback.rules import why_none_fits
from dspex.executions.steps import StepRun


def test_the_time_of_a_step_is_written_as_all_others() -> None:
    began = datetime(2026, 11, 21, 11, 28, 20, 925149, UTC)
    assert StepRun("a", started_at=began).to_json([])["started_at"] == "2026-11-21T11:28:20.925149Z"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (ExampleFilter("qa"), "No execution of 'qa' has feedback yet: give some with"),
        (ExampleFilter("qa", only="corrections"), "has a correction yet: give some with"),
        (ExampleFilter("qa", only="all"), "No execution of 'qa' completed yet."),
        (
            ExampleFilter("qa", version=2, label="x"),
            "has feedback among those that `version` and `label` let",
        ),
    ],
)
def test_a_filter_that_nothing_fits_says_which(where: ExampleFilter, said: str) -> None:
    assert said in why_none_fits(where)
