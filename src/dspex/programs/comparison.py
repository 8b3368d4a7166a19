"""What differs between two versions: instructions and demos of each predictor, fields, settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dspex.programs.records import Definition
from dspex.programs.rules import canonical


@dataclass(frozen=True, slots=True)
class Change:
    """`before` or `after` is None where there was nothing."""

    what: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class PredictorChange:
    """`instructions` is None when they are the same."""

    name: str
    instructions: Change | None
    demos_added: tuple[Any, ...]
    demos_removed: tuple[Any, ...]
    demos_kept: int


@dataclass(frozen=True, slots=True)
class Comparison:
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


@dataclass(frozen=True, slots=True)
class _Predictor:
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
        signature=_fields(before.signature, after.signature),
        settings=_settings(before, after),
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
    if found:
        return found
    name = "predict" if definition.module == "chain_of_thought" else "self"
    return {name: _Predictor(definition.signature.get("instructions"), ())}


def _instructions(signature: Any) -> Any:
    return signature.get("instructions") if isinstance(signature, Mapping) else None


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
