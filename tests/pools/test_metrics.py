"""Metrics in Python, in real worker processes."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dspex.access.records import LOCAL_OPERATOR
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import MetricSpec, Score
from dspex.evaluations.ports import MetricCase, MetricTask
from dspex.evaluations.python_scoring import PythonMetrics
from dspex.executions.errors import WorkerDied
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Conflict, Invalid
from dspex.programs.records import LanguageModelChoice
from dspex.providers.python_code import code_digest
from tests.plugins.pools import PROJECT, ScriptedHost, TestedPools, chat, open_pools

LM = {"alias": "main", "model": "openai/gpt-4o-mini", "options": {"temperature": 0.0}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pools() -> AsyncIterator[TestedPools]:
    async with open_pools(workers=1, concurrency=8) as opened:
        yield opened


pytestmark = pytest.mark.asyncio(loop_scope="module")


def task(name: str, *answers: str, root: Path = PROJECT, **changes: object) -> MetricTask:
    reference = f"shop.metrics:{name}"
    given = {
        "id": "e",
        "project": "default",
        "request_id": "r",
        "reference": reference,
        "code": code_digest([reference], [root]),
        "lm": LM,
        "limit_s": 60.0,
        "cases": [MetricCase({"question": f"{one}?"}, {"answer": "yes"}, {"answer": one}) for one in answers],
        **changes,
    }
    return MetricTask(**given)  # type: ignore[arg-type]


async def scores(
    pools: TestedPools, wanted: MetricTask, host: ScriptedHost | None = None
) -> Sequence[Score | MetricFailed]:
    return await pools.pools.score(wanted, host or ScriptedHost())


async def test_metrics_get_the_objects_that_dspy_gives_them(pools: TestedPools) -> None:
    assert await scores(pools, task("exact", "yes", "no")) == [Score(1.0), Score(0.0)]
    assert await scores(pools, task("kinds", "labels")) == [Score(1.0)]
    (told,) = await scores(pools, task("told", "so"))
    assert told == Score(0.5, feedback="so? was answered with so")
    assert await scores(pools, task("exact")) == []


async def test_whatever_is_no_score_is_a_failure_of_its_own_example(pools: TestedPools) -> None:
    host = ScriptedHost()
    found = await scores(pools, task("kinds", "fine", "nan", "text", "raise", "exit", "fine"), host)
    assert found[0] == found[5] == Score(1.0)
    failures = [one for one in found if isinstance(one, MetricFailed)]
    assert [one.code for one in failures] == ["bad_score", "bad_score", "metric_failed", "metric_failed"]
    assert "returned a str" in failures[1].message
    assert "ValueError: no idea" in failures[2].message
    assert "SystemExit" in failures[3].message
    assert ("stdout", "scoring fine") in host.lines


async def test_one_that_takes_too_long_is_given_up(pools: TestedPools) -> None:
    slow, fine = await scores(pools, task("kinds", "slow", "fine", limit_s=2.0))
    assert isinstance(slow, MetricFailed) and slow.code == "metric_timeout"
    assert fine == Score(1.0)


async def test_a_metric_asks_models_through_the_node(pools: TestedPools) -> None:
    host = ScriptedHost(lambda asked: chat(good="yes?" in asked["messages"][-1]["content"]))
    assert await scores(pools, task("judged", "yes", "no"), host) == [Score(1.0), Score(0.0)]
    assert [one["alias"] for one in host.asked] == ["main", "main"]


async def test_a_metric_that_kills_its_worker_is_told_apart(pools: TestedPools) -> None:
    with pytest.raises(WorkerDied):
        await scores(pools, task("kinds", "die"))
    assert await scores(pools, task("kinds", "fine")) == [Score(1.0)]


@pytest.mark.parametrize(
    ("name", "reason"), [("absent", "has no 'absent'"), ("NOT_CALLABLE", "can't be called")]
)
async def test_a_metric_that_is_none_is_refused(pools: TestedPools, name: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason) as told:
        await scores(pools, task(name, "x"))
    assert told.value.code == "bad_metric"


async def test_other_code_than_the_evaluations_is_refused_and_new_code_gets_a_new_worker(
    tmp_path: Path,
) -> None:
    file = tmp_path / "shop" / "metrics.py"
    file.parent.mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    file.write_text("def same(example, pred):\n    return 0.25\n")
    async with open_pools(tmp_path, workers=1) as opened:
        first = task("same", "x", root=tmp_path)
        assert await scores(opened, first) == [Score(0.25)]
        file.write_text("def same(example, pred):\n    return 0.75\n")
        assert await scores(opened, task("same", "x", root=tmp_path)) == [Score(0.75)]
        with pytest.raises(Conflict) as told:
            await scores(opened, first)
        assert told.value.code == "code_changed"


async def test_the_metric_of_the_examples() -> None:
    root = Path(__file__).parents[2] / "examples" / "datasets"
    label = {"team": "billing", "urgency": "high"}
    cases = [
        MetricCase({"message": "?"}, label, {**label, **given})
        for given in ({}, {"urgency": "low"}, {"team": "sales"})
    ]
    async with open_pools(root, workers=1) as opened:
        wanted = task("exact", reference="metrics:sorted_well", code=None, cases=cases)
        found = await scores(opened, wanted)
    assert [one.value for one in found if isinstance(one, Score)] == pytest.approx([1.0, 0.7, 0.3])


async def test_a_metric_is_looked_at_before_anything_is_scored(pools: TestedPools) -> None:
    unused: Any = None
    metrics = PythonMetrics(pools.pools, unused, unused, SystemClock(), "n")
    lm = LanguageModelChoice("main", "openai/gpt-4o-mini", {})

    async def check(reference: str) -> None:
        await metrics.check(MetricSpec("python", reference=reference), LOCAL_OPERATOR, lm)

    await check("shop.metrics:exact")
    for reference, reason in (
        ("shop.metrics:absent", "has no 'absent'"),
        ("shop.nowhere:anything", "no module 'shop.nowhere'"),
        ("shop.metrics:NOT_CALLABLE", "can't be called"),
    ):
        with pytest.raises(Invalid, match=reason) as refused:
            await check(reference)
        assert refused.value.code == "bad_metric"
        assert [one.pointer for one in refused.value.problems] == ["/metric/reference"]
