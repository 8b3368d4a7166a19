"""Rows as DSPy's examples, and what of a program's demonstrations came from which row."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import dspy
from dspy.predict.predict import serialize_object

from dspex.kit.errors import DspexError, Invalid, Problem
from dspex.kit.json import dumps
from dspex.programs.records import COMPOSED
from dspex.providers.dspy_worker.running import Ready
from dspex.signatures.values import to_json

MOST_PROBLEMS = 100
# A trace's steps are remembered for telling demonstrations apart, within bounds.
MOST_STEPS = 200_000


def examples_of(ready: Ready, rows: Sequence[Mapping[str, Any]], at: str) -> list[dspy.Example]:
    """Typed as the program takes them; labels stay JSON. Raises Invalid (code bad_rows) with every bad row."""
    found, problems = [], []
    for number, row in enumerate(rows):
        try:
            inputs = ready.typed(row["inputs"])
        except DspexError as error:
            for one in error.problems or [Problem("", error.code, error.message)]:
                pointer = f"{at}/{number}{one.pointer}"
                problems.append(Problem(pointer, one.code, f"{one.message} (row {row.get('id')})"))
            continue
        found.append(dspy.Example(**{**row["outputs"], **inputs}).with_inputs(*inputs))
    if problems:
        raise Invalid(
            f"{len(problems)} rows do not fit the program's inputs, first at {problems[0].pointer}: "
            f"{problems[0].message}.",
            code="bad_rows",
            problems=problems[:MOST_PROBLEMS],
        )
    return found


class Origins:
    """Which row a demonstration came from: by its fields, or by a trace that the metric saw."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], examples: Sequence[dspy.Example]) -> None:
        self._whole: dict[str, Any] = {}
        self._by_inputs: dict[str, Any] = {}
        self._steps: dict[str, Any] = {}
        self._ids: dict[int, Any] = {}
        self._examples = list(examples)
        self._given = {_as_given(row): row.get("id") for row in reversed(rows)}
        for row, example in zip(rows, examples, strict=True):
            self._ids[id(example)] = row.get("id")
            self._whole.setdefault(_fingerprint(example), row.get("id"))
            self._by_inputs.setdefault(_fingerprint(example.inputs()), row.get("id"))

    def row_of(self, example: Any) -> Any:
        if id(example) in self._ids:
            return self._ids[id(example)]
        return self._whole.get(_fingerprint(example))

    def saw(self, example: Any, trace: Any) -> None:
        """Remembers what a row made a program's predictors say."""
        if not isinstance(trace, list) or len(self._steps) > MOST_STEPS:
            return
        row = self.row_of(example)
        for step in trace:
            if isinstance(step, tuple) and len(step) == 3:
                _, inputs, outputs = step
                try:
                    self._steps.setdefault(_fingerprint({**inputs, **outputs}), row)
                except TypeError:
                    # A reply that could not be parsed has no fields.
                    continue

    def demos(
        self, state: Mapping[str, Any], before: Mapping[str, Any], signatures: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """{"predictor", "index", "row", "source"} of every demonstration in a state.

        `before` is the state of the program as it was; `signatures` has the predictors' own, by name.
        """
        found = []
        kept = {
            (name, _fingerprint(demo)) for name, one in predictors_of(before) for demo in one.get("demos", ())
        }
        for name, one in predictors_of(state):
            for index, demo in enumerate(one.get("demos", ())):
                row, source = self._origin(name, demo, kept, signatures.get(name))
                found.append({"predictor": name, "index": index, "row": row, "source": source})
        return found + self._composed(state.get(COMPOSED) or {}, before, signatures)

    def _composed(
        self, composed: Mapping[str, Any], before: Mapping[str, Any], signatures: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Rows that neighbours are chosen from, as "neighbour"; what each program of an ensemble shows.

        "program" counts these, and "within" says where in one that is an ensemble itself.
        """
        found = [
            {
                "predictor": "neighbours",
                "index": index,
                "row": self._given.get(_as_given(row)),
                "source": "neighbour",
            }
            for index, row in enumerate(composed.get("rows", ()))
        ]
        for number, state in enumerate(composed.get("states", ())):
            for one in self.demos(state, before, signatures):
                # An ensemble may be of ensembles.
                inner = {"within": [one["program"], *one.get("within", ())]} if "program" in one else {}
                found.append({**one, "program": number, **inner})
        return found

    def _origin(
        self, name: str, demo: Mapping[str, Any], kept: set[tuple[str, str]], signature: Any
    ) -> tuple[Any, str]:
        if (name, _fingerprint(demo)) in kept:
            return None, "kept"
        fields = {key: value for key, value in demo.items() if key != "augmented"}
        known = _fingerprint(fields)
        if not demo.get("augmented"):
            return self._whole.get(known), "labelled"
        if known in self._steps:
            return self._steps[known], "bootstrapped"
        inputs = {} if signature is None else signature.input_fields
        given = {key: value for key, value in fields.items() if key in inputs}
        return self._by_inputs.get(_fingerprint(given)), "bootstrapped"


def predictors_of(state: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The predictors in a saved state by name; that of a lone dspy.Predict is called "self", as DSPy calls it."""
    if "demos" in state and "signature" in state:
        return [("self", state)]
    return [(name, one) for name, one in state.items() if isinstance(one, Mapping) and "demos" in one]


def _as_given(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(dumps([row["inputs"], row["outputs"]], sort_keys=True)).hexdigest()


def _fingerprint(fields: Any) -> str:
    # As demonstrations are saved.
    saved = {name: serialize_object(value) for name, value in dict(fields).items()}
    return hashlib.sha256(dumps(to_json(saved), sort_keys=True)).hexdigest()
