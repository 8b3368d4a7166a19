"""Teachable mode: right answers come from what the prompt says, and from nothing else."""

import json
from collections.abc import Sequence
from typing import get_args

import pytest

from dspex.gateway.records import Message
from dspex.providers.language_models.simulator.draws import Draws, digest
from dspex.providers.language_models.simulator.engine import SimulatedCall, Simulator, SimulatorOptions
from dspex.providers.language_models.simulator.prompts import Demo, Layout, Prompt, PromptField
from dspex.providers.language_models.simulator.proposing import propose_fields, propose_text
from dspex.providers.language_models.simulator.tasks import Split, Task, TaskRow, task_rows
from dspex.providers.language_models.simulator.teaching import TASKS, taught_fields
from tests.recorded_prompts import call_of

TEXT = {"type": "string"}
EACH_TASK = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def prompt_for(task: Task, text: str, instructions: str = "Answer.", demos: Sequence[TaskRow] = ()) -> Prompt:
    output = PromptField(task.output, "str", TEXT, True)
    shown = tuple(
        Demo(row.inputs, {name: str(value) for name, value in row.outputs.items()}) for row in demos
    )
    return Prompt(Layout("chat", instructions, (task.input,), (output,)), {task.input: text}, shown)


def score(task: Task, instructions: str = "Answer.", demos: Sequence[TaskRow] = ()) -> float:
    rows = task_rows(task, "test", 200)
    right = sum(
        taught_fields(prompt_for(task, row.inputs[task.input], instructions, demos), 0) == row.outputs
        for row in rows
    )
    return right / len(rows)


def mislabelled(rows: Sequence[TaskRow]) -> list[TaskRow]:
    """Each input with the label of another row, never its own."""
    labels = [row.outputs for row in rows]
    return [TaskRow(row.inputs, next(label for label in labels if label != row.outputs)) for row in rows]


@EACH_TASK
def test_rows_are_seeded_and_no_input_is_in_two_splits(task: Task) -> None:
    splits = {
        split: {row.inputs[task.input] for row in task_rows(task, split, 100)} for split in get_args(Split)
    }
    assert all(len(inputs) == 100 for inputs in splits.values())
    assert not splits["training"] & splits["test"]
    assert not splits["training"] & splits["validation"]
    assert not splits["validation"] & splits["test"]
    assert task_rows(task, "training", 20, seed=3) == task_rows(task, "training", 20, seed=3)
    assert task_rows(task, "training", 20, seed=3) != task_rows(task, "training", 20, seed=4)


@EACH_TASK
def test_a_bare_prompt_is_mostly_wrong(task: Task) -> None:
    assert 0.2 < score(task) < 0.5


@EACH_TASK
def test_right_demos_help_and_shuffled_labels_do_not(task: Task) -> None:
    demos = task_rows(task, "training", 8)
    assert score(task, demos=demos) > score(task) + 0.2
    assert score(task, demos=mislabelled(demos)) <= score(task)


@EACH_TASK
def test_demos_like_the_input_help_more_than_others(task: Task) -> None:
    rows = task_rows(task, "training", 60)
    kinds = {row.inputs[task.input]: task.solve(row.inputs[task.input]) for row in rows}
    asked = task_rows(task, "test", 300)
    right = {"same": 0, "other": 0}
    for row in asked:
        solution = task.solve(row.inputs[task.input])
        assert solution is not None
        for likeness, wanted in (("same", True), ("other", False)):
            demo = next(r for r in rows if (kinds[r.inputs[task.input]].kind == solution.kind) is wanted)  # type: ignore[union-attr]
            answer = taught_fields(prompt_for(task, row.inputs[task.input], demos=[demo]), 0)
            right[likeness] += answer == row.outputs
    assert right["same"] > right["other"] + 20


@EACH_TASK
def test_helpful_advice_helps_misleading_advice_harms_and_other_words_do_nothing(task: Task) -> None:
    helpful = " ".join(advice.sentence for advice in task.advice if advice.gain > 0)
    misleading = " ".join(advice.sentence for advice in task.advice if advice.gain < 0)
    assert score(task, helpful) > score(task) + 0.25
    assert score(task, misleading) < score(task)
    assert score(task, "Think hard and be a world-class expert.") == score(task)


def test_a_better_prompt_keeps_what_was_right() -> None:
    task = TASKS["dates"]
    demos = task_rows(task, "training", 8)
    for row in task_rows(task, "test", 100):
        text = row.inputs[task.input]
        if taught_fields(prompt_for(task, text), 0) == row.outputs:
            assert taught_fields(prompt_for(task, text, demos=demos), 0) == row.outputs


def test_inputs_that_are_not_of_the_task_are_not_taught() -> None:
    assert taught_fields(prompt_for(TASKS["dates"], "No date here."), 0) == {}


def proposer(output: str, **inputs: str) -> Prompt:
    return Prompt(
        Layout("chat", "Improve.", tuple(inputs), (PromptField(output, "str", TEXT, True),)), inputs, ()
    )


def helpful_share(task: Task, prompt: Prompt, output: str) -> float:
    """How many of 100 proposals hold helpful advice."""
    proposals = [str(propose_fields(prompt, Draws(digest(number)))[output]) for number in range(100)]
    useful = [advice.phrase for advice in task.advice if advice.gain > 0]
    return sum(any(phrase.search(text) for phrase in useful) for text in proposals) / 100


@EACH_TASK
def test_proposals_follow_the_examples_in_the_prompt(task: Task) -> None:
    rows = task_rows(task, "training", 10)

    def shown(examples: Sequence[TaskRow]) -> Prompt:
        return proposer("natural_language_rules", examples_text="\n\n".join(written(row) for row in examples))

    def written(row: TaskRow) -> str:
        question, label = row.inputs[task.input], row.outputs[task.output]
        return f"Input Fields:\n{task.input}: {question}\n\n=========\nOutput Fields:\n{task.output}: {label}"

    assert helpful_share(task, shown(rows), "natural_language_rules") > 0.8
    assert helpful_share(task, shown(mislabelled(rows)), "natural_language_rules") < 0.3


@EACH_TASK
def test_reflection_takes_low_scores_for_wrong_labels_into_account(task: Task) -> None:
    rows = task_rows(task, "training", 6)

    def shown(examples: Sequence[TaskRow], grade: float) -> Prompt:
        traces = [
            {
                "Inputs": row.inputs,
                "Generated Outputs": row.outputs,
                "Feedback": f"This trajectory got a score of {grade}.",
            }
            for row in examples
        ]
        return proposer(
            "new_instruction", current_instruction="Answer.", examples_with_feedback=json.dumps(traces)
        )

    assert helpful_share(task, shown(rows, 1.0), "new_instruction") > 0.8
    assert helpful_share(task, shown(rows, 0.0), "new_instruction") < 0.3
    assert helpful_share(task, shown(mislabelled(rows), 0.0), "new_instruction") > 0.8


def test_a_proposal_builds_on_the_best_instruction_so_far() -> None:
    attempts = "[1] «Instruction #1: Sort.»\n[2] «Instruction #2: Sort the message into a queue.»"
    prompt = proposer("proposed_instruction", attempted_instructions=attempts)
    proposed = propose_fields(prompt, Draws(digest("x")))["proposed_instruction"]
    assert proposed.startswith("Sort the message into a queue. ")


def test_advice_names_every_module() -> None:
    prompt = proposer("module_advice", program_inputs='{"message": "x"}', module_names='["self", "other"]')
    assert set(propose_fields(prompt, Draws(digest("x")))["module_advice"]) == {"self", "other"}


def test_a_plain_reflection_prompt_gets_a_fenced_instruction() -> None:
    text = "Instructions:\n```\nSort it.\n```\nYour task is to write a new instruction for the assistant."
    reply = propose_text(text, Draws(digest("x")))
    assert reply is not None
    assert reply.startswith("```\nSort it. ")
    assert reply.endswith("\n```")
    assert propose_text("What is the time?", Draws(digest("x"))) is None


def test_only_repeated_sampling_in_teachable_mode_varies() -> None:
    warm = call_of("plain", temperature=1.0)
    pinned = SimulatedCall(warm.messages, temperature=1.0, rollout_id=4)

    def texts(call: SimulatedCall, *, teach: bool) -> list[str]:
        simulator = Simulator(SimulatorOptions(teach=teach))
        return [simulator.answer(call).answers[0].text for _ in range(6)]

    assert len(set(texts(warm, teach=True))) > 1
    assert texts(warm, teach=True) == texts(warm, teach=True)
    assert len(set(texts(warm, teach=False))) == 1
    assert len(set(texts(pinned, teach=True))) == 1
    assert len(set(texts(call_of("plain", temperature=0.0), teach=True))) == 1


def test_without_teaching_the_task_is_a_question_like_any_other() -> None:
    task = TASKS["tickets"]
    row = task_rows(task, "test", 1)[0]
    call = SimulatedCall((Message("user", row.inputs[task.input]),))
    assert Simulator(SimulatorOptions(teach=True)).answer(call) == Simulator().answer(call)
