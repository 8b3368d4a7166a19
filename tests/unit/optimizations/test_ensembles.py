"""What an ensemble learned from, and shows, is what the versions did that vote in it."""

from typing import Any

import pytest

from dspex.datasets.records import Row
from dspex.kit.errors import Invalid
from dspex.optimizations.learned import learned_by
from dspex.optimizations.records import Optimized, OptimizerTask
from dspex.programs.records import COMPOSED
from tests.unit.optimizations.house import BETTER, House, optimized


def demo(row: Any, source: str = "labelled", **more: Any) -> dict[str, Any]:
    return {"predictor": "self", "index": 0, "row": row, "source": source, **more}


def showing(question: str) -> dict[str, Any]:
    return {**BETTER, "demos": [{"question": question, "answer": "x"}]}


def voting(*states: Any) -> dict[str, Any]:
    return {**BETTER, "demos": [], COMPOSED: {"kind": "ensemble", "states": list(states)}}


def neighbours(*questions: str) -> dict[str, Any]:
    rows = [{"inputs": {"question": one}, "outputs": {"answer": "x"}} for one in questions]
    return {**BETTER, "demos": [], COMPOSED: {"kind": "knn_few_shot", "k": 1, "rows": rows}}


async def learned(at: House, dataset: str = "questions", **order: Any) -> OptimizerTask:
    """Another version, made of the first, which shows its first row."""
    tasks: list[OptimizerTask] = []

    async def act(task: OptimizerTask, host: Any) -> Optimized:
        tasks.append(task)
        return optimized(
            state=showing(task.train[0]["inputs"]["question"]), demos=[demo(task.train[0]["id"])]
        )

    at.optimizers.act = act
    await at.take(await at.order(version=1, dataset=dataset, **order))
    (task,) = tasks
    return task


async def ensemble(at: House, made: Optimized, programs: list[Any], **order: Any) -> OptimizerTask:
    tasks: list[OptimizerTask] = []

    async def act(task: OptimizerTask, host: Any) -> Optimized:
        tasks.append(task)
        return made

    at.optimizers.act = act
    config = {"programs": programs}
    await at.take(await at.order(version=1, optimizer="Ensemble", config=config, **order))
    (task,) = tasks
    return task


def asked(rows: Any) -> set[str]:
    return {row["inputs"]["question"] for row in rows}


async def test_nothing_is_held_out_that_a_program_of_the_ensemble_learned_from() -> None:
    at = await House().furnish(rows=40)
    first, second = [await learned(at, seed=seed, validation_share=0.5) for seed in (1, 2)]
    task = await ensemble(at, optimized(state=voting()), [2, 3, 2], validation_share=0.2)
    assert asked(task.validation).isdisjoint(asked(first.train) | asked(second.train))
    lineage = (await at.version(4)).lineage or {}
    assert lineage["ensemble_of"] == [2, 3]
    # An ensemble of that, too.
    again = await ensemble(at, optimized(state=voting(BETTER)), [4], seed=3, validation_share=0.1)
    assert asked(again.validation).isdisjoint(asked(first.train) | asked(second.train) | asked(task.train))
    found = await learned_by(at.programs, at.datasets, [await at.version(5)])
    assert sorted(one.version for one in found) == [2, 3, 4, 5]
    assert [len(one.inputs or ()) for one in found if one.version in (2, 3)] == [20, 20]


async def test_a_validation_set_of_what_a_program_of_the_ensemble_learned_from_is_refused() -> None:
    at = await House().furnish()
    await at.add_dataset("others", range(100, 110))
    await at.add_dataset("held", range(100, 110))
    await learned(at, "others")
    with pytest.raises(Invalid) as refused:
        await at.order(version=1, optimizer="Ensemble", config={"programs": [2]}, validation="held")
    assert refused.value.code == "validation_overlaps"


async def test_rows_that_neighbours_are_chosen_from_are_learned_wherever_they_came_from() -> None:
    at = await House().furnish()
    state = voting(neighbours("100?", "101?"), voting(neighbours("102?")))
    await ensemble(at, optimized(state=state), [neighbours("100?")])
    (found,) = await learned_by(at.programs, at.datasets, [await at.version(2)])
    await at.add_dataset("others", range(100, 104))
    rows: list[Row] = list(
        (await at.datasets.rows(await at.datasets.get("default", "others"), limit=9, cursor=None)).data
    )
    known = [row.inputs["question"] for row in rows if row.inputs_digest in (found.inputs or ())]
    assert known == ["100?", "101?", "102?"]


async def test_what_the_programs_of_an_ensemble_show_is_known_by_the_rows_that_it_came_from() -> None:
    at = await House().furnish()
    await at.add_dataset("others", range(100, 110))
    row = (await learned(at, "others")).train[0]
    shown = showing(row["inputs"]["question"])

    async def act(task: OptimizerTask, host: Any) -> Optimized:
        rows = [task.train[0]["inputs"]["question"], "elsewhere?"]
        of = [
            demo(task.train[0]["id"], "neighbour", predictor="neighbours"),
            demo(None, "neighbour", index=1),
        ]
        return optimized(state=neighbours(*rows), demos=of)

    at.optimizers.act = act
    await at.take(await at.order(version=1))
    third = await at.version(3)
    near = (third.definition.state or {})[COMPOSED]["rows"][0]["inputs"]["question"]
    made = optimized(
        state=voting(shown, voting(showing("new?"), neighbours("new?", near))),
        demos=[
            demo(None, program=0),
            demo(None, program=1, within=[0]),
            demo(None, "neighbour", predictor="neighbours", program=1, within=[1]),
            demo(None, "neighbour", predictor="neighbours", index=1, program=1, within=[1]),
        ],
    )
    await ensemble(at, made, [2, 3])
    lineage = (await at.version(4)).lineage or {}
    (known,) = [one["row"] for one in (third.lineage or {})["demos"] if one["row"] is not None]
    assert [(one["row"], one.get("dataset")) for one in lineage["demos"]] == [
        (row["id"], "others"),
        (None, None),
        (None, None),
        (known, "questions"),
    ]
    for dataset, versions in (("others", [2, 4]), ("questions", [3, 4])):
        found = await at.programs.showing_rows_of("default", dataset, [1])
        assert [one.version for one in found] == versions
