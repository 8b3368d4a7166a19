"""The metric of an optimization: as a number, as DSPy's optimizers call it, and over a whole set."""

import contextvars
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
from dspy.utils.exceptions import LMError, LMInvalidRequestError, LMUnsupportedFeatureError
from msgspec import Struct

from dspex.evaluations.metrics.calling import call_metric
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.judging import JUDGE, cosine, judge_inputs, judged, pairs_of, similar
from dspex.evaluations.metrics.records import MetricSpec, Score
from dspex.evaluations.metrics.scoring import fields_of, scored
from dspex.kit import json
from dspex.kit.errors import Invalid
from dspex.providers.dspy_worker.embedders import GatewayEmbedder
from dspex.providers.dspy_worker.engines import METRIC
from dspex.providers.dspy_worker.modules import signature_class
from dspex.providers.dspy_worker.optimizing.examples import Origins
from dspex.providers.dspy_worker.optimizing.limiting import limited
from dspex.providers.dspy_worker.references import check_code, resolve
from dspex.signatures.document import signature_from_document
from dspex.signatures.values import outputs_to_json

LONGEST_SHOWN = 500


class Metric:
    """Scores what a program answered. `judge` is the model of lm_judge, `embedder` that of semantic similarity."""

    def __init__(
        self, spec: MetricSpec, judge: Any, embedder: str | None, origins: Origins | None = None
    ) -> None:
        self.spec = spec
        self.origins = origins
        # The first example that had no score, and why.
        self.failure: str | None = None
        self._judge = judge
        self._embedder = embedder
        self._function: Callable[..., Any] | None = None
        if spec.name == "python" and spec.reference is not None:
            check_code(spec.code, (spec.reference,))
            self._function = resolve(spec.reference)
            if not callable(self._function):
                raise Invalid(f"{spec.reference!r} is no function.", code="bad_reference")
        if spec.name == "semantic_similarity" and embedder is None:
            raise Invalid(
                "Semantic similarity needs an embedding model: add one with `model_type: embedding` to "
                "models.registry, or name it as `model` of the metric.",
                code="bad_metric",
            )

    def score(self, example: Any, prediction: Any, **more: Any) -> Score:
        """Raises MetricFailed when the example has no score. Metrics in Python may ask for `more`, as in DSPy."""
        try:
            with dspy.context(**{METRIC: True}):
                return self._score(example, prediction, more)
        except MetricFailed as failed:
            if self.failure is None:
                row = None if self.origins is None else self.origins.row_of(example)
                self.failure = failed.message if row is None else f"row {row}: {failed.message}"
            raise

    def _score(self, example: Any, prediction: Any, more: Mapping[str, Any]) -> Score:
        if (function := self._function) is not None:
            return limited(lambda: call_metric(function, example, prediction, more), self.spec.limit_s)
        expected, outputs = plain(example.labels()), plain(prediction)
        if self.spec.name == "lm_judge":
            asked = judge_inputs(self.spec, plain(example.inputs()), expected, outputs)
            with dspy.context(lm=self._judge, adapter=dspy.ChatAdapter(), trace=None, callbacks=[]):
                said = dspy.Predict(signature_class(signature_from_document(JUDGE)))(**asked)
            return judged(dict(said.items()))
        if self.spec.name == "semantic_similarity":
            return self._similar(expected, outputs)
        return scored(self.spec, expected, outputs)

    def _similar(self, expected: Mapping[str, Any], outputs: Mapping[str, Any]) -> Score:
        pairs = pairs_of(self.spec, expected, outputs)
        vectors = GatewayEmbedder(self._embedder)([text or " " for _, *both in pairs for text in both])
        cosines = {
            name: cosine(vectors[2 * at].tolist(), vectors[2 * at + 1].tolist())
            for at, (name, *_) in enumerate(pairs)
        }
        return similar(self.spec, cosines)

    def __call__(self, example: Any, prediction: Any, trace: Any = None, *_: Any, **__: Any) -> float:
        """As DSPy's optimizers call metrics."""
        if self.origins is not None:
            self.origins.saw(example, trace)
        return self.score(example, prediction, trace=trace).value

    def with_feedback(
        self,
        example: Any,
        prediction: Any,
        trace: Any = None,
        pred_name: str | None = None,
        pred_trace: Any = None,
    ) -> Any:
        """As GEPA calls metrics: what it reflects on is the score with what was expected and what came."""
        found = self.score(example, prediction, trace=trace, pred_name=pred_name, pred_trace=pred_trace)
        told = found.feedback or self._told(example, prediction, found)
        return dspy.Prediction(score=found.value, feedback=told)

    def _told(self, example: Any, prediction: Any, found: Score) -> str:
        said = [f"This trajectory got a score of {found.value}."]
        expected, outputs = plain(example.labels()), plain(prediction)
        try:
            fields = fields_of(self.spec, expected)
        except MetricFailed:
            fields = tuple(expected)
        for name in fields:
            wanted, given = _shown(expected.get(name)), _shown(outputs.get(name))
            if found.fields.get(name, found.value) >= 1.0:
                said.append(f"{name} is right: {given}.")
            else:
                said.append(f"{name} was expected to be {wanted}, and was {given}.")
        return " ".join(said)


def plain(values: Any) -> dict[str, Any]:
    """A prediction's or an example's values as JSON."""
    return outputs_to_json(dict(values.items()))


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value).decode()
    return repr(text[:LONGEST_SHOWN])


class _Outcome(Struct, frozen=True):
    """`value` is None where nobody can tell; `wrong` ones count as 0, since the program failed by itself."""

    value: float | None
    error: Exception | None = None
    wrong: bool = False


class Scored(Struct, frozen=True):
    """A program over a set. `score` is None when no example had one; `values` has that of each example, in order.

    `failed` examples have none, since a model could not be asked or the metric gave none; on `wrong` ones the program
    failed by itself, which counts as 0. On `refused` ones of these a model refused what it was asked.
    """

    score: float | None
    examples: int
    failed: int = 0
    wrong: int = 0
    refused: int = 0
    reason: str | None = None
    error: BaseException | None = None
    values: tuple[float | None, ...] = ()

    def document(self) -> dict[str, Any]:
        return {
            "score": self.score,
            "examples": self.examples,
            "failed": self.failed,
            "wrong": self.wrong,
            "refused": self.refused,
            "reason": self.reason,
        }


def compared(before: Scored, after: Scored) -> tuple[float | None, float | None, int]:
    """Both scores over the examples that both have one of, and how many these are.

    Whoever fails on hard examples would be better by that alone.
    """
    pairs = [
        (one, other)
        for one, other in zip(before.values, after.values, strict=True)
        if one is not None and other is not None
    ]
    return _mean([one for one, _ in pairs]), _mean([other for _, other in pairs]), len(pairs)


def score_over(
    program: dspy.Module, examples: Sequence[dspy.Example], metric: Metric, threads: int
) -> Scored:
    """One example after the other with one thread, so that the same is asked in the same order."""

    def one(example: dspy.Example) -> _Outcome:
        try:
            with dspy.context(trace=[], callbacks=[]):
                prediction = program(**example.inputs())
        except (LMInvalidRequestError, LMUnsupportedFeatureError) as refused:
            # A prompt with too many demonstrations, say: it would be refused again.
            return _Outcome(0.0, refused, wrong=True)
        except LMError as unasked:
            return _Outcome(None, unasked)
        except MemoryError:
            raise
        except Exception:
            return _Outcome(0.0, wrong=True)
        try:
            return _Outcome(metric.score(example, prediction).value)
        except Exception as unscored:
            # A judge whose reply could not be read says nothing of the answer either.
            return _Outcome(None, unscored)

    if threads == 1:
        outcomes = [one(example) for example in examples]
    else:
        with ThreadPoolExecutor(threads, thread_name_prefix="score") as executor:
            states = [contextvars.copy_context() for _ in examples]
            futures = [
                executor.submit(state.run, one, example)
                for state, example in zip(states, examples, strict=True)
            ]
            try:
                outcomes = [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()
    failures = [outcome.error for outcome in outcomes if outcome.value is None]
    refusals = [outcome.error for outcome in outcomes if outcome.wrong and outcome.error is not None]
    first = next(iter([*failures, *refusals]), None)
    return Scored(
        _mean([outcome.value for outcome in outcomes if outcome.value is not None]),
        len(examples),
        len(failures),
        sum(outcome.wrong for outcome in outcomes),
        len(refusals),
        None if first is None else f"{type(first).__name__}: {str(first)[:1000]}",
        first,
        tuple(outcome.value for outcome in outcomes),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
