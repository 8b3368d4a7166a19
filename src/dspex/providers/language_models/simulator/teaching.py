"""Teachable mode: how often the simulator is right depends on nothing but what the prompt says.

The chance of a right answer starts low. Key phrases in the instructions and demos with right labels raise
it, demos of the input's own kind more than others; wrong labels and misleading phrases lower it. Whether an
input is answered right is then one draw, fixed by input and seed, so a better prompt keeps what it had right.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from dspex.providers.language_models.simulator.draws import Draws, digest
from dspex.providers.language_models.simulator.prompts import Demo, Layout, Prompt
from dspex.providers.language_models.simulator.task_counts import COUNTS
from dspex.providers.language_models.simulator.task_dates import DATES
from dspex.providers.language_models.simulator.task_tickets import TICKETS
from dspex.providers.language_models.simulator.tasks import Task

TASKS = {task.name: task for task in (TICKETS, DATES, COUNTS)}

_BASE = 0.35
_CEILING = 0.95
_REASONING = 0.05
_DEMO_OF_KIND = 0.2
_OTHER_DEMO = 0.05
_WRONG_DEMO = 0.15
_DEMOS_AT_MOST = 0.4


def taught_fields(
    prompt: Prompt, seed: int, sample: bytes | None = None, gains: Mapping[str, float] = MappingProxyType({})
) -> dict[str, Any]:
    """The value of the task's output field; empty when the prompt is of no shipped task.

    `sample` tells repeated samples of one prompt apart; `gains` is what a fine-tuned model has learned of each task.
    """
    task = task_of(prompt.layout, prompt.inputs)
    if task is None:
        return {}
    text = prompt.inputs[task.input]
    solution = task.solve(text)
    if solution is None:
        return {}
    chance = min(accuracy(task, solution.kind, prompt) + gains.get(task.name, 0.0), _CEILING)
    draws = Draws(digest("taught", seed, task.name, text, sample))
    if draws.unit() < chance:
        return {task.output: solution.value}
    return {task.output: solution.mistakes[draws.below(len(solution.mistakes))]}


def accuracy(task: Task, kind: str, prompt: Prompt) -> float:
    """The chance in [0, 1] that this prompt gets an input of this kind right."""
    advised = sum(
        advice.gain
        for advice in task.advice
        if kind in advice.kinds and advice.phrase.search(prompt.layout.instructions)
    )
    reasons = any(field.name == "reasoning" for field in prompt.layout.outputs)
    chance = _BASE + advised + _demo_gain(task, kind, prompt.demos) + (_REASONING if reasons else 0.0)
    return min(max(chance, 0.05), _CEILING)


def _demo_gain(task: Task, kind: str, demos: Sequence[Demo]) -> float:
    gain = 0.0
    for demo in demos:
        solution = task.solve(demo.inputs.get(task.input, ""))
        shown = demo.outputs.get(task.output)
        if solution is None or shown is None:
            continue
        if shown.strip() != str(solution.value):
            gain -= _WRONG_DEMO
        else:
            gain += _DEMO_OF_KIND if solution.kind == kind else _OTHER_DEMO
    return min(max(gain, 0.0), _DEMOS_AT_MOST)


def task_of(layout: Layout, inputs: Mapping[str, str]) -> Task | None:
    """The shipped task that a prompt with these inputs is of."""
    for task in TASKS.values():
        if task.input in inputs and any(field.name == task.output for field in layout.outputs):
            return task
    return None
