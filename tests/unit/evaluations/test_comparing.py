"""Which evaluations can be compared, and why others can't."""

from datetime import UTC, datetime

import pytest

from dspex.evaluations.comparing import check_comparable
from dspex.evaluations.metrics.records import MetricSpec
from dspex.evaluations.records import Evaluation
from dspex.kit.errors import Conflict


def evaluation_with(metric: MetricSpec) -> Evaluation:
    at = datetime(2026, 1, 31, tzinfo=UTC)
    return Evaluation("1", "default", "qa", 1, "rows", 1, "1", "d" * 64, metric, 10, 1, at)


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        (MetricSpec("exact_match", ("answer",)), MetricSpec("f1"), "metrics: exact_match(answer) and f1."),
        (
            MetricSpec("python", reference="shop.metrics:close", code="a" * 64),
            MetricSpec("python", reference="shop.metrics:close", code="b" * 64),
            "metrics: both are shop.metrics:close, with other code.",
        ),
        (
            MetricSpec("semantic_similarity", threshold=0.8),
            MetricSpec("semantic_similarity", model="small"),
            "both are semantic_similarity, with threshold 0.8 and unset, model unset and small.",
        ),
    ],
)
def test_other_metrics_are_told_by_what_differs(a: MetricSpec, b: MetricSpec, told: str) -> None:
    with pytest.raises(Conflict) as refused:
        check_comparable(evaluation_with(a), evaluation_with(b))
    assert told in refused.value.message
    check_comparable(evaluation_with(a), evaluation_with(a))
