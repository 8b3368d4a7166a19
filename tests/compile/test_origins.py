"""Which row each demonstration of a composed program came from."""

import dspy

from dspex.programs.records import COMPOSED
from dspex.providers.dspy_worker.optimizing.examples import Origins

ROWS = [{"id": f"r{n}", "inputs": {"question": f"{n}"}, "outputs": {"answer": f"{n}"}} for n in range(3)]
EXAMPLES = [dspy.Example(question=f"{n}", answer=f"{n}").with_inputs("question") for n in range(3)]
BARE = {"demos": [], "signature": {}}


def test_neighbours_are_chosen_from_rows() -> None:
    rows = [{"inputs": row["inputs"], "outputs": row["outputs"]} for row in ROWS]
    state = {COMPOSED: {"kind": "knn_few_shot", "k": 1, "rows": rows}, "predict": BARE}
    found = Origins(ROWS, EXAMPLES).demos(state, {}, {})
    assert [(one["row"], one["source"]) for one in found] == [(f"r{n}", "neighbour") for n in range(3)]
    assert {one["predictor"] for one in found} == {"neighbours"}


def test_an_ensemble_shows_what_its_programs_do() -> None:
    states = [
        {"predict": {**BARE, "demos": [{"question": "1", "answer": "1"}]}},
        {"predict": {**BARE, "demos": [{"question": "none", "answer": "of these"}]}},
    ]
    state = {COMPOSED: {"kind": "ensemble", "states": states}, "predict": BARE}
    found = Origins(ROWS, EXAMPLES).demos(state, {}, {})
    assert [(one["program"], one["predictor"], one["row"]) for one in found] == [
        (0, "predict", "r1"),
        (1, "predict", None),
    ]


def test_an_ensemble_of_ensembles_says_where_in_it_each_is() -> None:
    shown = {"predict": {**BARE, "demos": [{"question": "1", "answer": "1"}]}}
    inner = {COMPOSED: {"kind": "ensemble", "states": [{"predict": BARE}, shown]}, "predict": BARE}
    state = {
        COMPOSED: {"kind": "ensemble", "states": [{"predict": BARE}, {"predict": BARE}, inner]},
        "predict": BARE,
    }
    (found,) = Origins(ROWS, EXAMPLES).demos(state, {}, {})
    assert (found["program"], found["within"], found["row"]) == (2, [1], "r1")
