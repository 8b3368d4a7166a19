"""What an optimization measures: by what is counted as wrong, by what is left out, and in what time."""

import threading
import time
from collections.abc import Callable

import dspy
import pytest
from dspy.utils.exceptions import ContextWindowExceededError, LMInvalidRequestError, LMServerError

from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.reading import read_metric
from dspex.evaluations.metrics.records import Score
from dspex.providers.dspy_worker.optimizing import limiting
from dspex.providers.dspy_worker.optimizing.limiting import limited
from dspex.providers.dspy_worker.optimizing.measuring import Metric, Scored, compared, score_over

EXAMPLES = [dspy.Example(question=str(n), answer=str(n)).with_inputs("question") for n in range(20)]


class Answering(dspy.Module):
    """Right, but for what it is told to raise."""

    def __init__(self, error: Exception, fails: Callable[[int], bool]) -> None:
        super().__init__()
        self.error, self.fails = error, fails

    def forward(self, question: str) -> dspy.Prediction:
        if self.fails(int(question)):
            raise self.error
        return dspy.Prediction(answer=question)


def scored(error: Exception, fails: Callable[[int], bool], threads: int = 1) -> Scored:
    metric = Metric(read_metric("exact_match"), None, None)
    return score_over(Answering(error, fails), EXAMPLES, metric, threads)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("kind", [LMInvalidRequestError, ContextWindowExceededError])
def test_what_a_model_refuses_is_wrong(kind: type[Exception], threads: int) -> None:
    found = scored(kind(message="not this prompt"), lambda number: number != 7, threads)
    assert (found.score, found.refused, found.wrong, found.failed) == (1 / 20, 19, 19, 0)


def test_what_a_program_fails_on_is_wrong_and_what_a_model_fails_on_is_not_known() -> None:
    wrong = scored(ValueError("mine"), lambda number: number < 5)
    assert (wrong.score, wrong.wrong, wrong.refused, wrong.failed) == (0.75, 5, 0, 0)
    down = scored(LMServerError("down"), lambda number: number < 5)
    assert (down.score, down.wrong, down.failed) == (1.0, 0, 5)
    assert down.reason is not None and "down" in down.reason


def test_scores_are_compared_over_what_both_have() -> None:
    before = Scored(0.5, 4, failed=1, values=(1.0, 0.0, None, 0.5))
    after = Scored(1.0, 4, failed=1, values=(1.0, None, 1.0, 1.0))
    assert compared(before, after) == (0.75, 1.0, 2)
    assert compared(before, Scored(None, 4, values=(None,) * 4)) == (None, None, 0)


def until_none_hangs() -> None:
    until = time.monotonic() + 60
    while limiting._stuck.calls and time.monotonic() < until:
        time.sleep(0.01)
    assert limiting._stuck.calls == 0


def test_a_call_that_does_not_end_is_not_waited_for() -> None:
    ending = threading.Event()

    def hanging() -> Score:
        # One call into C, which nothing but its own end interrupts.
        ending.wait(300)
        return Score(1.0)

    began = time.monotonic()
    with pytest.raises(MetricFailed, match=r"more than 0\.2 s") as failed:
        limited(hanging, 0.2)
    assert failed.value.code == "metric_timeout"
    assert time.monotonic() - began < 120
    ending.set()
    until_none_hangs()


def test_only_so_many_calls_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiting, "MOST_STUCK", 2)
    ending = threading.Event()

    def hanging() -> Score:
        ending.wait(300)
        return Score(1.0)

    for _ in range(2):
        with pytest.raises(MetricFailed, match=r"more than 0\.05 s for one example"):
            limited(hanging, 0.05)
    with pytest.raises(MetricFailed, match="is not asked"):
        limited(lambda: Score(1.0), 5)
    ending.set()
    until_none_hangs()
    assert limited(lambda: Score(0.5), 60) == Score(0.5)


def test_what_is_raised_in_time_is_raised() -> None:
    class End(BaseException):
        """As a budget that is spent."""

    def ends() -> Score:
        raise End

    with pytest.raises(End):
        limited(ends, 60)
