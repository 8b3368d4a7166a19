"""What DSPy saved of a pipeline is what it saved of each predictor, under the step's name and the predictor's own."""

from collections.abc import Mapping
from typing import Any


def joined(states: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The states of steps, each as DSPy saves such a module alone, as that of one module."""
    whole: dict[str, Any] = {}
    for step, state in states.items():
        if isinstance(state.get("demos"), list):
            whole[step] = state
        else:
            whole |= {f"{step}.{name}": one for name, one in state.items()}
    return whole


def of_step(whole: Mapping[str, Any] | None, step: str) -> Mapping[str, Any] | None:
    """A step's part, as DSPy saves such a module alone; None when there is nothing of it."""
    if whole is None:
        return None
    if step in whole:
        found: Mapping[str, Any] = whole[step]
        return found
    prefix = f"{step}."
    return {name.removeprefix(prefix): one for name, one in whole.items() if name.startswith(prefix)} or None
