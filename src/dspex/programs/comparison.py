"""What differs between two versions: instructions and demos of each predictor, fields, settings."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from dspex.programs.records import Definition
from dspex.programs.rules import canonical


class Change(Struct, frozen=True):
    """`before` or `after` is None where there was nothing."""

    what: str
    before: Any
    after: Any


class PredictorChange(Struct, frozen=True):
    """`instructions` is None when they are the same."""

    name: str
    instructions: Change | None
    demos_added: tuple[Any, ...]
    demos_removed: tuple[Any, ...]
    demos_kept: int


class Comparison(Struct, frozen=True):
    """`signature` names a field as a JSON pointer, "/outputs/answer"; `settings` names a setting."""

    predictors: tuple[PredictorChange, ...]
    signature: tuple[Change, ...]
    settings: tuple[Change, ...]

    @property
    def same(self) -> bool:
        return not (
            self.signature
            or self.settings
            or any(one.instructions or one.demos_added or one.demos_removed for one in self.predictors)
        )


class _Predictor(Struct, frozen=True):
    """What optimizers change of one predictor."""

    instructions: str | None
    demos: tuple[Any, ...]


def compare(
    before: Definition,
    after: Definition,
    saved_before: Mapping[str, Any] | None,
    saved_after: Mapping[str, Any] | None,
) -> Comparison:
    """`saved_*` is what DSPy saved of the compiled version; without it the definition's own state counts."""
    old, new = _predictors(before, saved_before), _predictors(after, saved_after)
    names = [*old, *(name for name in new if name not in old)]
    return Comparison(
        predictors=tuple(_compare(name, old.get(name), new.get(name)) for name in names),
        signature=(*_fields(before.signature, after.signature), *_fields_of_steps(before, after)),
        settings=(*_settings(before, after), *_wiring(before, after)),
    )


def _compare(name: str, old: _Predictor | None, new: _Predictor | None) -> PredictorChange:
    before, after = old or _Predictor(None, ()), new or _Predictor(None, ())
    known = {canonical(demo) for demo in before.demos}
    wanted = {canonical(demo) for demo in after.demos}
    changed = before.instructions != after.instructions
    return PredictorChange(
        name=name,
        instructions=Change("instructions", before.instructions, after.instructions) if changed else None,
        demos_added=tuple(demo for demo in after.demos if canonical(demo) not in known),
        demos_removed=tuple(demo for demo in before.demos if canonical(demo) not in wanted),
        demos_kept=sum(canonical(demo) in known for demo in after.demos),
    )


def _predictors(definition: Definition, saved: Mapping[str, Any] | None) -> dict[str, _Predictor]:
    state = saved or definition.state or {}
    found = {
        name: _Predictor(_instructions(one.get("signature")), tuple(one["demos"]))
        for name, one in predictor_states(state).items()
    }
    if definition.module == "pipeline":
        # A state may be of some steps only.
        return {
            name: _Predictor(step["signature"].get("instructions"), ())
            for step in definition.config["steps"]
            if (name := predictor_name(step["module"], step["name"])) is not None
        } | found
    name = predictor_name(definition.module) or "self"
    return found or {name: _Predictor(definition.signature.get("instructions"), ())}


def _instructions(signature: Any) -> Any:
    return signature.get("instructions") if isinstance(signature, Mapping) else None


# What each module calls its only predictor; others have several.
_PREDICTOR: Mapping[str, str] = {"predict": "self", "chain_of_thought": "predict"}


def predictor_name(module: str, step: str | None = None) -> str | None:
    """What DSPy calls the only predictor of a module, or of a pipeline's step; None where there may be several."""
    name = _PREDICTOR.get(module)
    if step is None or name is None:
        return name
    return step if name == "self" else f"{step}.{name}"


def predictor_states(state: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Each predictor's part of a state that DSPy saved; a lone predictor is called "self", as in DSPy."""
    if isinstance(state.get("demos"), list):
        return {"self": state}
    return {
        name: one
        for name, one in state.items()
        if isinstance(one, Mapping) and isinstance(one.get("demos"), list)
    }


def _fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    changes = []
    for side in ("inputs", "outputs"):
        old = {field["name"]: field for field in before[side]}
        new = {field["name"]: field for field in after[side]}
        for name in [*old, *(name for name in new if name not in old)]:
            if old.get(name) != new.get(name):
                changes.append(Change(f"/{side}/{name}", old.get(name), new.get(name)))
        if list(old) != list(new) and set(old) == set(new):
            changes.append(Change(f"/{side}", list(old), list(new)))
    for key in ("instructions", "name"):
        if before.get(key) != after.get(key):
            changes.append(Change(f"/{key}", before.get(key), after.get(key)))
    return tuple(changes)


def _fields_of_steps(before: Definition, after: Definition) -> tuple[Change, ...]:
    """Of steps that both have."""
    old, new = _steps(before), _steps(after)
    return tuple(
        replace(change, what=f"/steps/{name}{change.what}")
        for name in old
        if name in new
        for change in _fields(old[name]["signature"], new[name]["signature"])
    )


def _wiring(before: Definition, after: Definition) -> tuple[Change, ...]:
    old, new = _steps(before), _steps(after)
    changes = [] if list(old) == list(new) else [Change("steps", list(old) or None, list(new) or None)]
    for name in old:
        if name in new:
            one, other = _step_settings(old[name]), _step_settings(new[name])
            changes += [
                Change(f"steps.{name}.{what}", one[what], other[what])
                for what in one
                if one[what] != other[what]
            ]
    outputs = before.config.get("outputs"), after.config.get("outputs")
    return tuple(changes) if outputs[0] == outputs[1] else (*changes, Change("outputs", *outputs))


def _steps(definition: Definition) -> dict[str, Mapping[str, Any]]:
    return (
        {} if definition.module != "pipeline" else {step["name"]: step for step in definition.config["steps"]}
    )


def _step_settings(step: Mapping[str, Any]) -> dict[str, Any]:
    lm = step["lm"]
    return {
        **{name: step[name] for name in ("module", "adapter", "inputs", "when", "on_failure")},
        "model": lm["alias"],
        "provider_model": lm["model"],
        "options": lm["options"],
    }


def _settings(before: Definition, after: Definition) -> tuple[Change, ...]:
    pairs = (
        ("module", before.module, after.module),
        ("adapter", before.adapter, after.adapter),
        ("model", before.lm.alias, after.lm.alias),
        ("provider_model", before.lm.model, after.lm.model),
        ("options", dict(before.lm.options), dict(after.lm.options)),
        ("mock", before.mock, after.mock),
    )
    return tuple(Change(what, old, new) for what, old, new in pairs if old != new)
