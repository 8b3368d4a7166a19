"""Teachable mode's other role: the model that an optimizer asks for better instructions.

Advice is drawn from what the task's examples in the prompt support. Examples whose labels contradict the task
make helpful advice rare and misleading advice common; without examples it is a guess.
"""

import json
import re
from itertools import pairwise
from typing import Any

from dspex.providers.language_models.simulator.draws import Draws
from dspex.providers.language_models.simulator.prompts import Prompt
from dspex.providers.language_models.simulator.tasks import Task
from dspex.providers.language_models.simulator.teaching import TASKS

_REFLECTION = re.compile(r"write a new instruction for the assistant", re.IGNORECASE)
_FENCED = re.compile(r"```\n(.*?)\n```", re.DOTALL)
_ATTEMPT = re.compile(r"Instruction #\d+: (.*?)(?=[»\n]|$)")
_FAILED = re.compile(r"score of (-?\d+(?:\.\d+)?)", re.IGNORECASE)
_GENERAL = ("Read the input with care.", "Answer with the value alone.", "Be precise and brief.")
# The chances to write a helpful and a misleading sentence, by what the examples in the prompt say.
_CHANCES = {"supported": (0.75, 0.0), "unknown": (0.35, 0.15), "contradicted": (0.05, 0.4)}


def propose_fields(prompt: Prompt, draws: Draws) -> dict[str, Any]:
    """Values for the fields in which optimizers ask for instructions, rules or advice; else empty."""
    asked = {field.name for field in prompt.layout.outputs}
    shown = "\n".join(f"{name}:\n{value}" for name, value in prompt.inputs.items())
    if "new_instruction" in asked:
        return {"new_instruction": _instruction(prompt.inputs.get("current_instruction", ""), shown, draws)}
    if "proposed_instruction" in asked:
        attempts = _ATTEMPT.findall(prompt.inputs.get("attempted_instructions", ""))
        current = prompt.inputs.get("basic_instruction") or (attempts[-1] if attempts else "")
        return {"proposed_instruction": _instruction(current, shown, draws)}
    if "natural_language_rules" in asked:
        rules = _sentences(shown, "", draws)
        return {"natural_language_rules": "\n".join(f"{n}. {rule}" for n, rule in enumerate(rules, 1))}
    if "module_advice" in asked:
        advice = " ".join(_sentences(shown, "", draws))
        return {"module_advice": dict.fromkeys(_module_names(prompt.inputs.get("module_names", "")), advice)}
    return {}


def propose_text(text: str, draws: Draws) -> str | None:
    """The reply to GEPA's reflection prompt, the new instruction in a fence; None for any other text."""
    if not _REFLECTION.search(text):
        return None
    current = _FENCED.search(text)
    return f"```\n{_instruction(current[1] if current else '', text, draws)}\n```"


def _instruction(current: str, shown: str, draws: Draws) -> str:
    return " ".join(part for part in (current.strip(), *_sentences(shown, current, draws)) if part)


def _sentences(shown: str, current: str, draws: Draws) -> list[str]:
    chosen = [_GENERAL[draws.below(len(_GENERAL))]]
    task = _task_shown(shown)
    if task is not None:
        helpful, misleading = _CHANCES[_support(task, shown)]
        for advice in task.advice:
            wanted = draws.unit() < (helpful if advice.gain > 0 else misleading)
            if wanted and not advice.phrase.search(current):
                chosen.append(advice.sentence)
    return chosen


def _module_names(listed: str) -> list[str]:
    try:
        names = json.loads(listed)
    except ValueError:
        return re.findall(r"[\w.\[\]]+", listed)
    return [str(name) for name in names] if isinstance(names, list) else []


def _named(field: str) -> str:
    """A field's name as code or as a heading: `iso_date` is also "Iso Date"."""
    return field.replace("_", "[_ ]")


def _task_shown(text: str) -> Task | None:
    for task in TASKS.values():
        names = (task.input, task.output)
        if all(re.search(rf"(?<![a-z]){_named(name)}(?![a-z])", text, re.IGNORECASE) for name in names):
            return task
    return None


def _support(task: Task, text: str) -> str:
    """What the labelled examples say together.

    A right label that was accepted speaks for the task, one that scored low against it, as does a wrong
    label that was accepted; a wrong label that scored low speaks for it faintly. Of several labels for one
    input the first counts.
    """
    field = re.compile(
        rf"""(?<![a-z])(?:(?P<input>{_named(task.input)})|{_named(task.output)})["'`*]*\s*[:=\n]\s*"""
        rf"""(?:(?P<quote>["'])(?P<quoted>.*?)(?P=quote)|(?P<bare>[^\n}}]*))""",
        re.IGNORECASE,
    )
    found = list(field.finditer(text))
    votes: dict[str, float] = {}
    for given, label in pairwise(found):
        question = (given["quoted"] or given["bare"] or "").strip()
        solution = task.solve(question) if given["input"] and not label["input"] else None
        if solution is None or question in votes:
            continue
        following = text.find(question[:10], label.end())
        score = _FAILED.search(text, label.end(), following if following >= 0 else len(text))
        accepted = score is None or float(score[1]) >= 0.5
        right = (label["quoted"] or label["bare"] or "").strip().rstrip(",}) ") == str(solution.value)
        if right:
            votes[question] = 1.0 if accepted else -1.0
        else:
            votes[question] = -1.0 if accepted else 0.25
    if not votes:
        return "unknown"
    return "supported" if sum(votes.values()) > 0 else "contradicted"
