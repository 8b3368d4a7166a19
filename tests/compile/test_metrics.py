"""Scores for text are DSPy's own."""

import contextlib
import io

from dspy.evaluate.metrics import EM, F1
from hypothesis import given
from hypothesis import strategies as st

from dspex.evaluations.metrics.comparing import exact_match, f1

# Words that normalising does something to, and anything else.
words = st.sampled_from(
    ["The", "a", "AN", "eiffel", "Tower", "don't", "x-ray", "é", "e\u0301", "ß", "½", "..."]
)
texts = st.one_of(st.lists(words, max_size=8).map(" ".join), st.text(max_size=30))


@given(texts, st.one_of(texts, st.lists(texts, min_size=1, max_size=4)))
def test_text_is_scored_as_dspy_scores_it(given_text: str, expected: str | list[str]) -> None:
    answers = [expected] if isinstance(expected, str) else expected
    assert exact_match(expected, given_text) == float(EM(given_text, answers))
    # It prints about texts without words.
    with contextlib.redirect_stdout(io.StringIO()):
        assert f1(expected, given_text) == F1(given_text, answers)
