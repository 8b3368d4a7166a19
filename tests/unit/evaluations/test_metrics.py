"""Metrics: how they are written, and what they say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.evaluations.metrics.calling import call_metric, read_score
from dspex.evaluations.metrics.comparing import contains, exact_match, f1, same
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.judging import CRITERIA, cosine, judge_inputs, judged, pairs_of, similar
from dspex.evaluations.metrics.reading import metric_of, read_metric
from dspex.evaluations.metrics.records import MetricSpec
from dspex.evaluations.metrics.scoring import score, scored
from dspex.kit.errors import Invalid

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("exact_match", {"name": "exact_match"}),
        ({"name": "f1", "field": "answer"}, {"name": "f1", "fields": ["answer"]}),
        ({"name": "contains", "fields": ["a", "b"]}, {"name": "contains", "fields": ["a", "b"]}),
        ({"python": "shop.metrics:accuracy"}, {"name": "python", "reference": "shop.metrics:accuracy"}),
        (
            {"name": "python", "reference": "shop:m.n", "timeout_s": 2},
            {"name": "python", "reference": "shop:m.n", "timeout_s": 2.0},
        ),
        (
            {"name": "semantic_similarity", "threshold": 0.5, "model": "vectors"},
            {"name": "semantic_similarity", "threshold": 0.5, "model": "vectors"},
        ),
        (
            {"name": "lm_judge", "criteria": "Is it kind?"},
            {"name": "lm_judge", "criteria": "Is it kind?"},
        ),
    ],
)
def test_metrics_are_written_shortly_and_kept_canonically(written: Any, canonical: Any) -> None:
    spec = read_metric(written)
    assert spec.document() == canonical
    assert metric_of(canonical) == spec
    assert read_metric(canonical) == spec


@pytest.mark.parametrize(
    ("written", "pointers"),
    [
        ("accuracy", ["/metric"]),
        (7, ["/metric"]),
        ({}, ["/metric/name"]),
        ({"name": "f1", "threshold": 1, "model": "m"}, ["/metric/threshold", "/metric/model"]),
        ({"name": "f1", "field": "a", "fields": ["b"]}, ["/metric/fields"]),
        ({"name": "f1", "fields": []}, ["/metric/fields"]),
        ({"name": "f1", "fields": ["a", "a"]}, ["/metric/fields"]),
        ({"name": "f1", "field": "a\x00"}, ["/metric/field"]),
        ({"name": "semantic_similarity", "threshold": float("nan")}, ["/metric/threshold"]),
        ({"name": "semantic_similarity", "threshold": True}, ["/metric/threshold"]),
        ({"name": "lm_judge", "criteria": ""}, ["/metric/criteria"]),
        ({"name": "python"}, ["/metric/reference"]),
        ({"python": "no reference"}, ["/metric/reference"]),
        ({"python": "shop:m", "code": "0" * 64}, ["/metric/code"]),
        ({"python": "shop:m", "timeout_s": 0}, ["/metric/timeout_s"]),
    ],
)
def test_bad_metrics_are_told_by_pointer(written: Any, pointers: list[str]) -> None:
    with pytest.raises(Invalid) as told:
        read_metric(written)
    assert told.value.code == "bad_metric"
    assert [one.pointer for one in told.value.problems] == pointers
    # For people: a command line has no document that they would point into.
    assert "/metric" not in str(told.value)


@pytest.mark.parametrize(
    ("measure", "expected", "given", "value"),
    [
        (exact_match, "The Eiffel Tower!", "eiffel  tower", 1.0),
        (exact_match, ["Louvre", "Eiffel Tower"], "the eiffel tower", 1.0),
        (exact_match, ["a"], ["a"], 1.0),
        (exact_match, ["a"], ["A"], 0.0),
        (exact_match, 1, 1.0, 1.0),
        (exact_match, 1, True, 0.0),
        (exact_match, "1", 1, 0.0),
        (exact_match, None, None, 1.0),
        (exact_match, {"a": [1, None], "b": 2}, {"b": 2, "a": [1.0, None]}, 1.0),
        (f1, "Paris", "Eiffel Tower is in Paris", pytest.approx(1 / 3)),
        (f1, "", "", 0.0),
        (f1, 3, 3, 1.0),
        (contains, "Paris", "It is in PARIS, France.", 1.0),
        (contains, ["Rome", "Paris"], "in Paris", 1.0),
        (contains, "Rome", "in Paris", 0.0),
        (contains, "the", "Paris", 0.0),
        (contains, "the", "...", 1.0),
        (contains, "Paris", ["rome", "paris"], 1.0),
        (contains, [1, 2], [3, 2, 1], 1.0),
        (contains, [1, 4], [3, 2, 1], 0.0),
        (contains, 2, 2, 1.0),
    ],
)
def test_measures(measure: Any, expected: Any, given: Any, value: float) -> None:
    assert measure(expected, given) == value


@given(json_values, json_values)
def test_measures_stay_within_0_and_1_whatever_they_are_given(expected: Any, given: Any) -> None:
    for measure in (exact_match, f1, contains):
        assert 0.0 <= measure(expected, given) <= 1.0
    assert same(expected, expected)
    assert same(expected, given) == same(given, expected)


def test_a_score_is_the_mean_over_the_labelled_fields() -> None:
    outputs = {"team": "Sales", "urgent": True, "reasoning": "..."}
    found = scored(MetricSpec("exact_match"), {"team": "sales", "urgent": False}, outputs)
    assert (found.value, found.fields) == (0.5, {"team": 1.0, "urgent": 0.0})
    only = MetricSpec("exact_match", ("team",))
    assert score(only, {"team": "sales", "urgent": False}, outputs) == 1.0
    assert score(MetricSpec("f1"), {"answer": "Paris"}, {}) == 0.0


@pytest.mark.parametrize("expected", [{}, {"other": "x"}])
def test_an_example_without_the_label_has_no_score(expected: dict[str, Any]) -> None:
    with pytest.raises(MetricFailed) as told:
        score(MetricSpec("exact_match", ("answer",)), expected, {"answer": "x"})
    assert told.value.code == "not_labelled"


class Told:
    score = 0.25
    feedback = "shorter"


@pytest.mark.parametrize(
    ("metric", "value", "feedback"),
    [
        (lambda example, prediction, trace=None: example == prediction, 1.0, None),
        (lambda example, prediction: 3, 3.0, None),
        (lambda gold, pred, trace, pred_name, pred_trace: {"score": 0.5, "feedback": "so"}, 0.5, "so"),
        (lambda gold, pred, whatever: 0.5, 0.5, None),
        (lambda example, prediction, trace=None: Told(), 0.25, "shorter"),
    ],
)
def test_metrics_in_python_are_called_as_dspy_calls_them(
    metric: Any, value: float, feedback: str | None
) -> None:
    found = call_metric(metric, "same", "same")
    assert (found.value, found.feedback) == (value, feedback)


@pytest.mark.parametrize(
    "given", [float("nan"), float("inf"), "0.7", None, [1], {"score": "high"}, {}, 10**400, 1j]
)
def test_what_is_no_finite_number_is_no_score(given: Any) -> None:
    with pytest.raises(MetricFailed) as told:
        read_score(given)
    assert told.value.code == "bad_score"


def test_a_metric_that_raises_is_a_failure_with_its_reason() -> None:
    def metric(example: Any, prediction: Any, trace: Any = None) -> float:
        raise KeyError("answer")

    with pytest.raises(MetricFailed, match="KeyError: 'answer'") as told:
        call_metric(metric, {}, {})
    assert told.value.code == "metric_failed"


def test_a_judge_sees_inputs_and_texts() -> None:
    spec = MetricSpec("lm_judge", ("answer",))
    asked = judge_inputs(spec, {"question": "2+2?"}, {"answer": "4"}, {"answer": "four"})
    assert asked == {
        "question": '{"question":"2+2?"}',
        "expected": "4",
        "answer": "four",
        "criteria": CRITERIA,
    }
    assert judged({"score": 0.75}).value == 0.75
    for said in ({"score": 1.2}, {"score": True}, {"score": "1"}, {}):
        with pytest.raises(MetricFailed, match="no score"):
            judged(said)


def test_similarity_is_the_mean_cosine_or_a_share_above_a_threshold() -> None:
    spec = MetricSpec("semantic_similarity")
    pairs = pairs_of(spec, {"a": "x", "b": ["y"]}, {"a": "z"})
    assert pairs == [("a", "x", "z"), ("b", '["y"]', "")]
    assert similar(spec, {"a": 0.5, "b": -0.5}).value == 0.25
    assert similar(MetricSpec("semantic_similarity", threshold=0.5), {"a": 0.5, "b": 0.4}).value == 0.5
    assert cosine([3.0, 0.0], [0.0, 2.0]) == 0.0
    assert cosine([1.0, 1.0], [2.0, 2.0]) == pytest.approx(1.0)
    assert cosine([0.0], [1.0]) == 0.0
    with pytest.raises(MetricFailed):
        cosine([1.0], [1.0, 2.0])
