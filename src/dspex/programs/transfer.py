"""Taking in what `module.save("x.json")` of DSPy wrote."""

from collections.abc import Iterator, Mapping
from typing import Any

from dspex.kit.errors import Invalid, Problem
from dspex.programs.comparison import predictor_name, predictor_states
from dspex.programs.pipelines.states import of_step
from dspex.programs.records import Module

_KEPT = frozenset({"traces", "train", "demos", "signature", "extended_signature", "fields"})


def imported_state(saved: Mapping[str, Any], module: Module) -> tuple[dict[str, Any], list[str]]:
    """The state to keep, and notes on what was left out: language models and metadata stay behind.

    Raises Invalid (code bad_state), with pointers into the state, for JSON in which no predictor was saved, for
    the state of another module, and for a predictor that DSPy can't read.
    """
    predictors = predictor_states(saved)
    if not predictors:
        raise _bad(
            "This is not what DSPy's `module.save` writes: no predictor with demos is in it.",
            Problem("", "bad_state", "no predictor with demos is in it"),
        )
    name = predictor_name(module)
    if name is None:
        return _of_several(predictors, saved)
    predictor = predictors.get(name)
    if predictor is None:
        found = ", ".join(repr(one) for one in predictors)
        raise _bad(
            f"The saved state is of another module: the predictor of a {module} is {name!r}, and it has {found}.",
            Problem("", "bad_state", f"no predictor {name!r} is in it"),
        )
    return _of_several({name: predictor}, saved)


def _of_several(
    predictors: Mapping[str, Mapping[str, Any]], saved: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    problems = [
        Problem(f"{'' if one is saved else f'/{name}'}{where}", "bad_state", what)
        for name, one in predictors.items()
        for where, what in _misshapen(one)
    ]
    if problems:
        raise _bad(
            "The saved state is not as DSPy writes it: "
            + "; ".join(f"{one.pointer} {one.message}" for one in problems[:3])
            + ".",
            *problems,
        )
    notes = [
        f"The language model saved with {name!r} ({one['lm'].get('model', 'unnamed')}) was left out; the program's "
        "own model answers."
        for name, one in predictors.items()
        if isinstance(one.get("lm"), Mapping)
    ]
    notes += _made_by(saved)
    # Only what DSPy reads is kept: anything else would be stored and shown without being of use.
    kept = {
        name: {key: value for key, value in one.items() if key in _KEPT} | {"lm": None}
        for name, one in predictors.items()
    }
    return kept["self"] if predictors.get("self") is saved else kept, notes


def imported_pipeline_state(
    saved: Mapping[str, Any], modules: Mapping[str, str]
) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """By step, what `imported_state` keeps of it; `modules` are the steps' module kinds. Raises as that does."""
    predictors = predictor_states(saved)
    chosen: dict[str, Mapping[str, Any]] = {}
    lacking = []
    for step, module in modules.items():
        name = predictor_name(module, step)
        own = [name] if name else [one for one in predictors if one.startswith(f"{step}.")]
        if not own or own[0] not in predictors:
            lacking.append(name or f"{step}.…")
        else:
            chosen |= {one: predictors.pop(one) for one in own}
    if lacking:
        raise _bad(
            f"The saved state is of another pipeline: it lacks {', '.join(map(repr, lacking))}.",
            *(Problem("", "bad_state", f"no predictor {name!r} is in it") for name in lacking),
        )
    kept, notes = _of_several(chosen, saved)
    if predictors:
        notes.append(f"There is no step for {', '.join(map(repr, predictors))}; that was left out.")
    return {step: of_step(kept, step) or {} for step in modules}, notes


def _made_by(saved: Mapping[str, Any]) -> list[str]:
    metadata = saved.get("metadata")
    if isinstance(metadata, Mapping) and isinstance(metadata.get("dependency_versions"), Mapping):
        return [f"It was saved by DSPy {metadata['dependency_versions'].get('dspy', 'of unknown version')}."]
    return []


def _misshapen(predictor: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where a predictor is not as `Predict.load_state` takes it, and what belongs there."""
    for index, demo in enumerate(predictor["demos"]):
        if not isinstance(demo, Mapping):
            yield f"/demos/{index}", "has to be an object"
    if not isinstance(predictor.get("fields", {}), Mapping):
        yield "/fields", "has to be an object"
    signature = predictor.get("signature")
    if not isinstance(signature, Mapping):
        yield "/signature", "has to be an object"
        return
    if not isinstance(signature.get("instructions"), str):
        yield "/signature/instructions", "has to be text"
    fields = signature.get("fields")
    if not isinstance(fields, list):
        yield "/signature/fields", "has to be a list"
        return
    for index, field in enumerate(fields):
        # DSPy writes null for a text that its author left out.
        texts = (
            [field.get(key, 0) for key in ("prefix", "description")] if isinstance(field, Mapping) else [0]
        )
        if not all(isinstance(text, str | None) for text in texts):
            yield f"/signature/fields/{index}", "has to be an object with the texts prefix and description"


def _bad(message: str, *problems: Problem) -> Invalid:
    return Invalid(message, code="bad_state", problems=problems)
