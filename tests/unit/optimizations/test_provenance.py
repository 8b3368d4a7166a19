"""Where demos came from that the next optimization kept."""

from typing import Any

from dspex.optimizations.records import Optimized, OptimizerTask
from tests.unit.optimizations.house import BETTER, House, optimized


async def test_kept_demos_are_known_by_the_dataset_that_they_came_from() -> None:
    at = await House().furnish()
    await at.add_dataset("others", range(100, 110))
    await at.add_dataset("thirds", range(200, 210))
    rows: list[str] = []

    async def act(task: OptimizerTask, host: Any) -> Optimized:
        """Keeps what it shows, behind one more."""
        number = len(rows)
        rows.append(task.train[0]["id"])
        shown = [{"question": f"{one}?", "answer": "x"} for one in range(number, -1, -1)]
        demos: list[dict[str, Any]] = [
            {"predictor": "self", "index": index, "row": None, "source": "kept"}
            for index in range(1, number + 1)
        ]
        first = {"predictor": "self", "index": 0, "row": rows[-1], "source": "labelled"}
        return optimized(state={**BETTER, "demos": shown}, demos=[first, *demos])

    at.optimizers.act = act
    for version, dataset in enumerate(("questions", "others", "thirds"), 1):
        await at.take(await at.order(version=version, dataset=dataset))
    found = [(one["row"], one.get("dataset")) for one in ((await at.version(4)).lineage or {})["demos"]]
    assert found == [(rows[2], None), (rows[1], "others"), (rows[0], "questions")]
    for dataset, versions in (("questions", [2, 3, 4]), ("others", [3, 4]), ("thirds", [4])):
        shown = await at.programs.showing_rows_of("default", dataset, [1])
        assert [(one.version, one.demos) for one in shown] == [(number, 1) for number in versions]
