"""Programs that an optimizer composed of others, which no state of DSPy's can say: few-shot by neighbours, ensembles.

Their state is that of the program they are made of, as DSPy saves it, with one member more, COMPOSED:
{"kind": "knn_few_shot", "k", "embedder", "rows", "bootstrap", "metric"} or {"kind": "ensemble", "states", "size",
"reduce", "field"}. Plain DSPy loads such a state as the program underneath.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dspy
from dspy.predict.aggregation import default_normalize
from dspy.teleprompt import Ensemble, KNNFewShot

from dspex.kit import json
from dspex.kit.errors import Invalid
from dspex.programs.records import COMPOSED
from dspex.providers.dspy_worker.containment import printing
from dspex.providers.dspy_worker.embedders import GatewayEmbedder

# Progress bars, and what BootstrapFewShot prints.
_CHATTER = ("\r", "Bootstrapped ")


def composition_of(state: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What a state says beyond DSPy's own; None for one of DSPy's."""
    found = None if state is None else state.get(COMPOSED)
    return found if isinstance(found, Mapping) else None


def underneath(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of the program that is composed."""
    return {name: one for name, one in state.items() if name != COMPOSED}


class Composed(dspy.Module):  # type: ignore[misc]
    """Runs `program`, and is saved as `state`. It has no predictors of its own: what it is made of is fixed.

    A `quiet` one does not print what DSPy says of its bootstrapping, which it does for every request.
    """

    def __init__(self, program: dspy.Module, state: Mapping[str, Any], *, quiet: bool = False) -> None:
        super().__init__()
        self._quiet = quiet
        self._program = [program]
        self._state = dict(state)

    def named_parameters(self) -> list[tuple[str, Any]]:
        """None, so that what is inside stays as it is."""
        return []

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return dict(self._state)

    def forward(self, **inputs: Any) -> dspy.Prediction:
        told = printing.get()
        if not self._quiet or told is None:
            return self._program[0](**inputs)
        token = printing.set(lambda stream, text: None if text.startswith(_CHATTER) else told(stream, text))
        try:
            return self._program[0](**inputs)
        finally:
            printing.reset(token)


def compose(
    state: Mapping[str, Any],
    base: Callable[[Mapping[str, Any]], dspy.Module],
    examples: Callable[[Sequence[Mapping[str, Any]]], list[dspy.Example]],
    metric: Callable[[Mapping[str, Any]], Any],
    model: Callable[[str], Any],
) -> Composed:
    """`base` builds the program with a state, `examples` types rows, `metric` reads a metric's document, `model` makes

    the language model of an alias.

    Raises Invalid (code bad_state).
    """
    said = state[COMPOSED]
    match said.get("kind"):
        case "knn_few_shot":
            bootstrap = dict(said.get("bootstrap") or {})
            if said.get("metric"):
                bootstrap["metric"] = metric(said["metric"])
            if teacher := bootstrap.get("teacher_settings"):
                bootstrap["teacher_settings"] = {"lm": model(teacher["lm"])}
            optimizer = KNNFewShot(
                said["k"], examples(said["rows"]), GatewayEmbedder(said["embedder"]), **bootstrap
            )
            return Composed(optimizer.compile(base(underneath(state))), state, quiet=True)
        case "ensemble":
            programs = [base(one) for one in said["states"]]
            return Composed(ensembled(programs, said.get("size"), said.get("field")), state)
    raise Invalid(
        f"The state says {COMPOSED} of a kind that this release does not know: {said.get('kind')!r:.100}.",
        code="bad_state",
    )


def ensembled(programs: Sequence[dspy.Module], size: int | None, field: str | None) -> dspy.Module:
    """DSPy's Ensemble over them: what most of them answer."""

    def reduce(predictions: list[dspy.Prediction]) -> dspy.Prediction:
        return dspy.majority(predictions, normalize=_normal, field=field)

    made: dspy.Module = Ensemble(reduce_fn=reduce, size=size).compile(list(programs))
    return made


def _normal(value: Any) -> Any:
    """DSPy's own for text; other values by their JSON."""
    return default_normalize(value) if isinstance(value, str) else json.dumps(value, sort_keys=True)
