"""What an order is refused for before anything is queued, and what it would take."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR
from dspex.datasets.records import Example, NewDataset
from dspex.executions.records import ExecutionStatistics
from dspex.gateway.records import Usage
from dspex.jobs.records import JobFilter
from dspex.kit.errors import Conflict, DspexError, Forbidden, Invalid
from dspex.optimizations.costing import by_executions, by_prompt, dollars
from dspex.optimizations.estimates import Sizes, work_of
from dspex.programs.definitions import define
from tests.unit.optimizations.house import BETTER, House, optimized
from tests.unit.programs.compiling import LM

DEVELOPER = replace(LOCAL_OPERATOR, role="developer", scopes=frozenset({"optimizations:write"}), key_id="k")


@pytest.mark.parametrize(
    ("order", "code", "pointers"),
    [
        ({"program": "absent"}, "program_missing", []),
        ({"version": 9}, "version_missing", []),
        ({"dataset": "absent"}, "dataset_missing", []),
        ({"dataset": "questions@7"}, "dataset_missing", []),
        ({"dataset": "questions@x"}, "bad_dataset_name", ["/dataset"]),
        ({"validation": "questions@0"}, "bad_dataset_name", ["/validation"]),
        ({"validation": "questions"}, "validation_overlaps", ["/validation"]),
        ({"dataset": "unlabelled"}, "unlabelled_rows", ["/dataset"]),
        ({"validation": "unlabelled"}, "unlabelled_rows", ["/validation"]),
        ({"dataset": "one"}, "too_few_rows", ["/dataset"]),
        ({"dataset": "foreign"}, "dataset_does_not_fit", ["/dataset", "/dataset"]),
        ({"metric": "nonsense"}, "bad_metric", ["/metric"]),
        ({"metric": {"python": "shop.metrics:absent"}}, "bad_metric", []),
        ({"metric": {"name": "f1", "field": "mood"}}, "dataset_does_not_fit", ["/metric"]),
        ({"metric": {"name": "lm_judge", "model": "absent"}}, "unknown_model", []),
        (
            {"budget_usd": -1.0, "threads": 0, "seed": -1},
            "bad_optimization",
            ["/budget_usd", "/threads", "/seed"],
        ),
        ({"budget_usd": float("nan")}, "bad_optimization", ["/budget_usd"]),
        ({"validation": "others", "validation_share": 0.5}, "bad_optimization", ["/validation_share"]),
        ({"validation_share": 0.99}, "bad_optimization", ["/validation_share"]),
    ],
)
async def test_what_can_not_be_done_is_refused_by_its_place(
    order: dict[str, Any], code: str, pointers: list[str]
) -> None:
    at = await House().furnish()
    await at.add_dataset("others", range(100, 105))
    await at.add_dataset("one", [1])
    await _without_labels(at)
    await _of_others(at)
    with pytest.raises(DspexError) as refused:
        await at.order(**order)
    assert refused.value.code == code
    assert [one.pointer for one in refused.value.problems] == pointers
    assert (await at.jobs.list("default", JobFilter(), limit=9, cursor=None)).data == ()


async def _without_labels(at: House) -> None:
    examples = [Example({"question": f"{n}?"}, {"answer": "x"} if n % 2 else {}) for n in range(200, 206)]
    await at.datasets.create("default", NewDataset("unlabelled"), examples)


async def _of_others(at: House) -> None:
    examples = [Example({"message": f"{n}"}, {"mood": "good"}) for n in range(5)]
    await at.datasets.create("default", NewDataset("foreign"), examples)


async def _second(at: House, **changes: Any) -> tuple[set[str], int]:
    """The ids that a first optimization trains on, and the number of the version that it makes."""
    first = await at.take(await at.order(**changes))
    assert first.result is not None
    return {row["id"] for row in at.optimizers.tasks[-1].train}, first.result["version"]


@pytest.mark.parametrize("seed", [0, 1, 2])
async def test_what_the_parent_trained_on_is_not_held_out(seed: int) -> None:
    at = await House().furnish(rows=20)
    trained, version = await _second(at)
    order = await at.order(version=version, seed=seed)
    await at.take(order)
    task = at.optimizers.tasks[-1]
    held = {row["id"] for row in task.validation}
    assert (len(trained), order.plan.train_rows, order.plan.validation_rows) == (14, 14, 6)
    assert (len(task.train), len(held)) == (14, 6)
    assert held.isdisjoint(trained)


async def test_the_third_generation_holds_out_what_neither_before_trained_on() -> None:
    at = await House().furnish(rows=20)
    trained, version = await _second(at)
    at.optimizers.act = _another
    more, version = await _second(at, version=version, validation_share=0.2, seed=1)
    await at.take(await at.order(version=version, validation_share=0.2, seed=2))
    held = {row["id"] for row in at.optimizers.tasks[-1].validation}
    assert (len(trained), len(more), len(held)) == (14, 16, 4)
    assert held.isdisjoint(trained | more)


async def _another(task: Any, host: Any) -> Any:
    return optimized(state={**BETTER, "demos": [{"question": "2?", "answer": "two"}]})


async def test_rows_that_the_parent_trained_on_validate_nothing() -> None:
    at = await House().furnish()
    await at.add_dataset("others", range(100, 110))
    _, version = await _second(at, validation="others")
    for order, pointer in (
        # All of its rows were trained on.
        ({}, "/dataset"),
        ({"dataset": "others", "validation": "questions"}, "/validation"),
    ):
        with pytest.raises(Invalid) as refused:
            await at.order(version=version, **order)
        assert (refused.value.code, refused.value.problems[0].pointer) == ("validation_overlaps", pointer)
    assert (await at.order(version=version, dataset="others")).plan.validation_rows == 3


async def test_what_a_deleted_dataset_taught_is_not_known() -> None:
    at = await House().furnish()
    _, version = await _second(at)
    await at.add_dataset("others", range(10))
    await at.datasets.delete("default", "questions")
    with pytest.raises(Invalid) as refused:
        await at.order(version=version, dataset="others")
    assert (refused.value.code, refused.value.problems[0].pointer) == ("validation_unknown", "/version")
    assert (await at.order(version=1, dataset="others")).plan.validation_rows == 3


async def test_what_dspy_refuses_is_refused_before_it_is_queued() -> None:
    at = await House().furnish()
    at.optimizers.refusal = Invalid("no predictors", code="not_optimizable")
    with pytest.raises(Invalid) as refused:
        await at.order()
    assert refused.value.code == "not_optimizable"


async def test_a_budget_needs_prices() -> None:
    at = await House(rates={}).furnish()
    with pytest.raises(Invalid) as refused:
        await at.order(budget_usd=1.0)
    assert (refused.value.code, refused.value.problems[0].pointer) == ("budget_needs_price", "/budget_usd")
    done = await at.take(await at.order())
    assert done.result is not None
    assert done.result["cost_usd"] == 0.0


async def test_a_mock_has_nothing_to_optimize() -> None:
    at = await House().furnish()
    mock = define("question -> answer", "predict", "chat", LM, mock={})
    program, version = await at.programs.create(
        "default", "mocked", mock, settings=at.program.settings, source="api"
    )
    with pytest.raises(Conflict) as refused:
        await at.order(program="mocked")
    assert refused.value.code == "not_executable"
    await at.programs.initialize([version])
    with pytest.raises(Conflict) as refused:
        await at.order(program="mocked")
    assert refused.value.code == "not_with_mock"
    await at.programs.archive(program)
    with pytest.raises(Conflict) as refused:
        await at.order(program="mocked")
    assert refused.value.code == "program_archived"


async def test_python_metrics_and_deployments_need_their_scopes() -> None:
    at = await House().furnish()
    with pytest.raises(Forbidden):
        await at.service.create(DEVELOPER, at.ordered(deploy=True))
    with pytest.raises(Invalid) as refused:
        await at.service.create(DEVELOPER, at.ordered(metric={"python": "shop.metrics:good"}))
    assert refused.value.code == "code_not_allowed"
    made = await at.order(metric={"python": "shop.metrics:good"})
    assert made.plan.metric == {"name": "python", "reference": "shop.metrics:good", "code": "c0de"}


async def test_the_same_is_not_done_twice_where_that_is_asked_for() -> None:
    at = await House().furnish()
    first = await at.order(unique=True, threads=1)
    again, is_new = await at.service.create(LOCAL_OPERATOR, at.ordered(unique=True, threads=4))
    assert (again.id, is_new) == (first.id, False)
    assert (await at.take(first)).state == "completed"
    again, is_new = await at.service.create(LOCAL_OPERATOR, at.ordered(unique=True))
    assert (again.id, is_new) == (first.id, False)
    other, is_new = await at.service.create(LOCAL_OPERATOR, at.ordered(unique=True, seed=1))
    assert is_new
    await at.service.cancel("default", other.id)
    _, is_new = await at.service.create(LOCAL_OPERATOR, at.ordered(unique=True, seed=1))
    assert is_new
    _, is_new = await at.service.create(LOCAL_OPERATOR, at.ordered())
    assert is_new


async def test_an_estimate_begins_nothing() -> None:
    at = await House().furnish(rows=10)
    found = await at.service.estimate(LOCAL_OPERATOR, at.ordered(optimizer="LabeledFewShot"))
    # The baseline and the result, each over the three rows that are held out.
    assert found.calls is not None and (found.calls.low, found.calls.high) == (6, 6)
    assert found.usd is not None and found.usd.low > 0
    assert (found.basis, found.reason) == ("prompt", None)
    assert (await at.jobs.list("default", JobFilter(), limit=9, cursor=None)).data == ()
    unknown = await at.service.estimate(LOCAL_OPERATOR, at.ordered(optimizer="BetterTogether"))
    assert (unknown.calls, unknown.usd) == (None, None)
    assert unknown.reason is not None
    at.prices.rates = {}
    unpriced = await at.service.estimate(LOCAL_OPERATOR, at.ordered())
    assert unpriced.calls is not None
    assert (unpriced.usd, unpriced.reason) == (None, "The price of model 'main' is not known.")


@pytest.mark.parametrize(
    ("optimizer", "config"),
    [
        ("LabeledFewShot", {}),
        ("BootstrapFewShot", {"max_rounds": 2}),
        ("BootstrapFewShotWithRandomSearch", {"num_candidate_programs": 4}),
        ("KNNFewShot", {"k": 3}),
        ("COPRO", {"breadth": 3, "depth": 2}),
        ("MIPROv2", {"auto": "light"}),
        ("MIPROv2", {"auto": None, "num_candidates": 3, "num_trials": 5}),
        ("SIMBA", {"max_steps": 2}),
        ("GEPA", {"max_metric_calls": 50}),
        ("GEPA", {"max_full_evals": 2}),
        ("GEPA", {"auto": "light"}),
        ("InferRules", {"num_candidates": "many"}),
    ],
)
def test_ranges_are_ranges_and_grow_with_the_rows(optimizer: str, config: dict[str, Any]) -> None:
    works = [
        work_of(optimizer, config, sizes)
        for sizes in (Sizes(20, 10, 1), Sizes(200, 100, 2, judged=True), Sizes(200, 100, 2, cached=True))
    ]
    small, large, cached = [work.calls for work in works if work is not None]
    assert 0 < small.low <= small.high
    assert small.low < large.low <= large.high
    assert 0 < cached.low <= cached.high


# What these really took of the tickets in examples/optimize: 60 rows each, and the prices of its dspex.yaml.
TAKEN: list[tuple[str, dict[str, Any], int, float]] = [
    ("LabeledFewShot", {"k": 16}, 120, 0.0114945),
    ("KNNFewShot", {"k": 3}, 346, 0.01553482),
    ("BootstrapFewShot", {}, 124, 0.01217565),
    ("BootstrapFewShotWithRandomSearch", {"num_candidate_programs": 4}, 436, 0.058791),
    ("COPRO", {"breadth": 4, "depth": 2}, 487, 0.0234474),
    ("MIPROv2", {"auto": "light"}, 455, 0.03178455),
    ("SIMBA", {"max_steps": 3, "bsize": 16}, 947, 0.05506185),
    ("GEPA", {"auto": "light"}, 335, 0.02143815),
    ("InferRules", {"num_candidates": 4}, 248, 0.03384795),
]


@pytest.mark.parametrize(("optimizer", "config", "calls", "cost"), TAKEN)
async def test_what_the_example_takes_lies_within_its_estimate(
    optimizer: str, config: dict[str, Any], calls: int, cost: float
) -> None:
    async def price(usage: Usage) -> float:
        return ((usage.input_tokens or 0) * 0.15 + (usage.output_tokens or 0) * 0.6) / 1e6

    work = work_of(optimizer, config, Sizes(60, 60, 1, cached=True))
    assert work is not None
    assert work.calls.low <= calls <= work.calls.high
    seen = ExecutionStatistics(
        executions=60,
        completed=60,
        failed=0,
        success_rate=1.0,
        duration_avg_ms=None,
        duration_p50_ms=None,
        duration_p95_ms=None,
        duration_p99_ms=None,
        input_tokens=13887,
        output_tokens=748,
        total_tokens=14635,
        cost_usd=0.0025,
        unpriced=0,
        saved_usd=0.0,
        cache_hits=0,
        last_executed_at=None,
    )
    executed = by_executions(seen, 1, 109)
    assert executed is not None
    for call in (executed, by_prompt(1, 109)):
        usd = await dollars(work, call, price)
        assert usd is not None
        assert usd.low <= cost <= usd.high
    # Narrow where the optimizer leaves little to chance.
    if optimizer in ("LabeledFewShot", "BootstrapFewShot"):
        usd = await dollars(work, executed, price)
        assert usd is not None and usd.high < 3 * cost


async def test_few_orders_are_looked_through_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at = await House().furnish()
    check = at.optimizers.check
    inside, most = 0, 0

    async def counted(*asked: Any) -> Mapping[str, Any]:
        nonlocal inside, most
        inside, most = inside + 1, max(most, inside + 1)
        # All the others come as far as they are let.
        for _ in range(200):
            await asyncio.sleep(0)
        inside -= 1
        return await check(*asked)

    monkeypatch.setattr(at.optimizers, "check", counted)
    orders = [at.service.create(LOCAL_OPERATOR, at.ordered(seed=seed)) for seed in range(4)]
    estimates = [at.service.estimate(LOCAL_OPERATOR, at.ordered(seed=seed)) for seed in range(4)]
    await asyncio.gather(*orders, *estimates)
    assert (len(at.optimizers.checked), most) == (8, 2)
