"""The shipped teachable tasks: rows with a known truth, and what a prompt can say that helps to find it."""

import re
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from dspex.providers.language_models.simulator.draws import Draws, digest

Split = Literal["training", "validation", "test"]
_SPLIT_SHARES: dict[Split, range] = {"training": range(5), "validation": range(5, 7), "test": range(7, 10)}


class Solution(Struct, frozen=True):
    """`kind` names the sub-skill an input needs; `mistakes` are answers that someone untaught would give."""

    kind: str
    value: str | int
    mistakes: tuple[str | int, ...]


class Advice(Struct, frozen=True):
    """A sentence that a proposer may write.

    An instruction that matches `phrase` moves the accuracy of `kinds` by `gain`, negative when it misleads.
    """

    sentence: str
    phrase: re.Pattern[str]
    kinds: frozenset[str]
    gain: float


class Task(Struct, frozen=True):
    """`signature` is in DSPy's string form. `solve` is None for a text that is not of this task."""

    name: str
    signature: str
    input: str
    output: str
    advice: tuple[Advice, ...]
    write: Callable[[Draws], str]
    solve: Callable[[str], Solution | None]


class TaskRow(Struct, frozen=True):
    inputs: dict[str, str]
    outputs: dict[str, str | int]


def task_rows(task: Task, split: Split, count: int, seed: int = 0) -> list[TaskRow]:
    """`count` different rows: the same seed, the same rows. No input is in two splits, whatever the seeds."""
    draws = Draws(digest("rows", task.name, split, seed))
    rows: dict[str, TaskRow] = {}
    while len(rows) < count:
        text = task.write(draws)
        solution = task.solve(text)
        if solution is None:
            raise AssertionError(f"task {task.name} can't solve its own row: {text}")
        if Draws(digest("split", task.name, text)).below(10) in _SPLIT_SHARES[split]:
            rows.setdefault(text, TaskRow({task.input: text}, {task.output: solution.value}))
    return list(rows.values())


def pick(draws: Draws, options: tuple[str, ...]) -> str:
    return options[draws.below(len(options))]
