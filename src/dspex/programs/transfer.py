"""Taking in what `module.save("x.json")` of DSPy wrote."""

from collections.abc import Mapping
from typing import Any

from dspex.kit.errors import Invalid
from dspex.programs.comparison import predictor_states

_KEPT = frozenset({"traces", "train", "demos", "signature", "extended_signature", "fields"})


def imported_state(saved: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The state to keep, and notes on what was left out: language models and metadata stay behind.

    Raises Invalid (code bad_state) for JSON in which no predictor was saved.
    """
    predictors = predictor_states(saved)
    if not predictors:
        raise Invalid(
            "This is not what DSPy's `module.save` writes: no predictor with demos is in it.",
            code="bad_state",
        )
    notes = [
        f"The language model saved with {name!r} ({one['lm'].get('model', 'unnamed')}) was left out; the "
        "program's own model answers."
        for name, one in predictors.items()
        if isinstance(one.get("lm"), Mapping)
    ]
    metadata = saved.get("metadata")
    if isinstance(metadata, Mapping) and isinstance(metadata.get("dependency_versions"), Mapping):
        notes.append(
            f"It was saved by DSPy {metadata['dependency_versions'].get('dspy', 'of unknown version')}."
        )
    # Only what DSPy reads is kept: anything else would be stored and shown without being of use.
    if predictors.get("self") is saved:
        return _without_model(saved), notes
    return {name: _without_model(one) for name, one in predictors.items()}, notes


def _without_model(predictor: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in predictor.items() if name in _KEPT} | {"lm": None}
