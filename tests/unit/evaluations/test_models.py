"""Answers of two models are never mixed in one evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from dspex.application.evaluating import Metrics
from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.configuration.settings import Settings
from dspex.evaluations.examples import Keeping
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import Score
from dspex.evaluations.models import Models, order_of
from dspex.evaluations.ports import MetricTask
from dspex.evaluations.rules import is_final
from dspex.evaluations.scoring import Answered, Scoring
from dspex.executions.ports import PoolHost
from tests.interfaces.node import TestNode
from tests.making import execution
from tests.plugins.compiler import ForkingCompiler
from tests.plugins.pools import PROJECT
from tests.unit.evaluations.working import House, Parts, prepared, right
from tests.unit.optimizations.house import asked

MOVED = ModelSettings(model="simulator/another", api_base="http://elsewhere/v1")


class AsksAnother:
    """A metric in Python that asks `other`."""

    async def score(self, task: MetricTask, host: PoolHost) -> Sequence[Score | MetricFailed]:
        if task.cases:
            await host.complete({**asked(task.cases[0].inputs["question"]), "alias": "other"})
        return [Score(1.0) for _ in task.cases]


def house(compiler: Path) -> House:
    registry = {
        "main": ModelSettings(model="simulator/one", fallbacks=("spare",)),
        **{name: ModelSettings(model=f"simulator/{name}") for name in ("spare", "judge", "other")},
    }
    settings = Settings(
        log_level="error", code_paths=(PROJECT,), models=ModelRegistry(default="main", registry=registry)
    )
    return House(TestNode(settings, ForkingCompiler(compiler), metric_pools=AsksAnother()))


def registry_of(at: House) -> dict[str, ModelSettings]:
    return at.node.settings.models.registry


async def with_a_model(client: httpx.AsyncClient) -> None:
    """`qa` asks `main`."""
    await prepared(client, 5)
    body = {"module": "predict", "executor": "auto", "deploy": True}
    made = await client.post("/v1/programs/qa/versions", json=body)
    assert made.json()["status"] == "deployed", made.text


@pytest.mark.parametrize(
    ("alias", "after"),
    [("main", MOVED), ("spare", MOVED), ("spare", None)],
    ids=["moved", "fallback", "gone"],
)
async def test_a_model_that_means_another_meanwhile_ends_it_and_what_is_scored_stays(
    compiler_address: Path, monkeypatch: pytest.MonkeyPatch, alias: str, after: ModelSettings | None
) -> None:
    at = house(compiler_address)
    broken = True

    async def say(answered: Answered) -> Scoring:
        if broken and answered.inputs["question"] == "4?":
            raise RuntimeError("a defect")
        return await right(answered)

    parts = Parts(say)
    parts.registry = registry_of(at)
    at.parts = at.node.services.evaluations.metrics = parts
    worker = at.another("me")
    async with at.node.client(timeout=60) as client:
        await with_a_model(client)
        made = await at.ask(client, concurrency=1)
        assert (await at.take(made, worker)).status == "failed"
        scored, broken = await at.results(made), False
        assert len(scored) == 3
        before = registry_of(at)[alias]
        if after is None:
            monkeypatch.delitem(registry_of(at), alias)
        else:
            monkeypatch.setitem(registry_of(at), alias, after)
        await at.node.services.jobs.retry("default", made)
        ended = await at.take(made, worker)
        assert ended.error is not None and (ended.error.kind, ended.error.code) == (
            "conflict",
            "model_changed",
        )
        now = "gone" if after is None else "simulator/another at http://elsewhere/v1"
        told = f"The model {alias!r} was {before.model} when this evaluation was ordered, and is {now} now"
        assert told in ended.error.message
        assert await at.results(made) == scored
        report = ended.result or {}
        assert (ended.status, report["scored"], report["stopped"]) == ("failed", 3, "failed")
        monkeypatch.setitem(registry_of(at), alias, before)
        await at.node.services.jobs.retry("default", made)
        ended = await at.take(made, worker)
        assert (ended.status, (ended.result or {})["scored"]) == ("completed", 5)


async def test_a_model_that_nobody_asks_may_change(
    compiler_address: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = house(compiler_address)
    async with at.node.client(timeout=60) as client:
        await with_a_model(client)
        made = await at.ask(client)
        monkeypatch.setitem(registry_of(at), "other", MOVED)
        assert (await at.take(made)).status == "completed"


async def test_a_mock_asks_no_model(compiler_address: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = house(compiler_address)
    async with at.node.client(timeout=60) as client:
        await prepared(client)
        made = await at.ask(client)
        monkeypatch.setitem(registry_of(at), "main", MOVED)
        assert (await at.take(made)).status == "completed"


@pytest.mark.parametrize("named", [True, False])
async def test_a_judge_is_the_same_all_the_time(
    compiler_address: Path, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    at = house(compiler_address)
    async with at.node.client(timeout=60) as client:
        await prepared(client)
        metric = {"name": "lm_judge", **({"model": "judge"} if named else {})}
        made = await at.ask(client, metric=metric)
        if named:
            monkeypatch.setitem(registry_of(at), "judge", MOVED)
        else:
            metrics = at.node.services.evaluations.metrics
            assert isinstance(metrics, Metrics)
            monkeypatch.setattr(metrics, "_models", metrics._models.model_copy(update={"default": "other"}))
        ended = await at.take(made)
        assert ended.error is not None and ended.error.code == "model_changed"
        told = "'judge' was simulator/judge" if named else "asked the model 'main'"
        assert told in ended.error.message
        assert await at.results(made) == []


async def test_a_model_that_only_users_code_asks_is_seen_when_it_answers(
    compiler_address: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = house(compiler_address)
    async with at.node.client(timeout=60) as client:
        await prepared(client)
        made = await at.ask(client, metric={"python": "shop.metrics:exact"})
        before = registry_of(at)["other"]
        monkeypatch.setitem(registry_of(at), "other", MOVED)
        ended = await at.take(made)
        assert ended.error is not None and ended.error.code == "model_changed"
        assert await at.results(made) == []
        monkeypatch.setitem(registry_of(at), "other", before)
        await at.node.services.jobs.retry("default", made)
        ended = await at.take(made)
        assert (ended.status, (ended.result or {})["mean"]) == ("completed", 1.0)


async def test_what_another_model_answered_is_paid_for_and_no_answer() -> None:
    node = TestNode()
    run: Any = None
    models = Models(order_of({"other": ModelSettings(model="simulator/other")}, None), {"other": MOVED})
    keeping = Keeping(node.executions, run, None, models)
    unchanged = execution(id="a", calls=({"model": "main"},))
    assert await keeping.keep(unchanged) == unchanged
    assert keeping.changed is None
    kept = await keeping.keep(execution(id="b", calls=({"model": "other"},), cost_usd=0.5))
    assert keeping.changed is not None and keeping.changed.code == "model_changed"
    assert kept is not None and (kept.status, kept.outputs, kept.cost_usd) == ("cancelled", None, 0.5)
    assert not is_final(kept), "whoever goes on asks the right model"


def test_an_evaluation_that_an_older_release_ordered_is_held_to_nothing() -> None:
    models = Models({"version": 1}, {"main": MOVED})
    assert models.changed_in(execution(calls=({"model": "main"},))) is None
