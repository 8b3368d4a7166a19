"""What a version has to show before it takes another one's place."""

from typing import Any

import pytest
from msgspec.structs import replace

from dspex.configuration.gates import Gates
from dspex.kit.errors import Conflict
from dspex.programs.gating import check_no_worse, measured_by_lineage
from dspex.programs.records import Measured, Version
from tests.making import program, version
from tests.unit.optimizations.house import BETTER, House

LINEAGE = {
    "optimization": "o",
    "dataset": {"name": "d", "version": 1},
    "score": 0.7,
    "scored_on": "validation",
    "cost_usd_per_call": 0.01,
}


async def furnished(gates: Gates, lineage: dict[str, Any] | None = None) -> tuple[House, Version]:
    at = await House().furnish(gates=gates)
    parent = await at.version(1)
    made = await at.programs.optimized(at.program, BETTER, parent=parent, lineage=lineage or LINEAGE)
    return at, made


@pytest.mark.parametrize(
    ("gates", "measured", "told"),
    [
        (Gates(min_score=0.8), None, "it scored 0.7 and needs 0.8"),
        (
            Gates(min_score=0.5),
            Measured(0.4, None, "evaluation e"),
            "it scored 0.4 and needs 0.5 (by evaluation",
        ),
        (Gates(min_score=0.5), Measured(None, 0.1, "evaluation e"), "it has no score on held-out examples"),
        (Gates(max_cost_usd_per_call=0.005), None, "is $0.01 and may be $0.005"),
        (Gates(max_cost_usd_per_call=0.5), Measured(1.0, None, "evaluation e"), "is not known"),
    ],
)
async def test_what_shows_too_little_does_not_answer(
    gates: Gates, measured: Measured | None, told: str
) -> None:
    at, version = await furnished(gates)
    with pytest.raises(Conflict) as refused:
        await at.programs.deploy(at.program, version, measured=measured)
    assert refused.value.code == "gate_not_met"
    assert told in refused.value.message
    assert (await at.version(1)).status == "deployed"
    await at.programs.deploy(at.program, version, measured=measured, force=True)
    assert (await at.version(2)).status == "deployed"


async def test_what_shows_enough_answers() -> None:
    gates = Gates(min_score=0.7, max_cost_usd_per_call=0.01)
    at, version = await furnished(gates)
    await at.programs.deploy(at.program, version)
    assert (await at.version(2)).status == "deployed"


async def test_a_score_on_what_was_learned_from_counts_for_nothing() -> None:
    at, version = await furnished(Gates(min_score=0.1), {**LINEAGE, "scored_on": "train"})
    with pytest.raises(Conflict, match="has no score on held-out examples"):
        await at.programs.deploy(at.program, version)


async def test_a_rollback_is_not_held_back() -> None:
    at, version = await furnished(Gates(min_score=0.7))
    deployed = await at.programs.deploy(at.program, version)
    with pytest.raises(Conflict):
        # Version 1 was never measured.
        await at.programs.deploy(deployed, await at.version(1))
    program, back = await at.programs.rollback(deployed)
    assert (back.number, program.deployed_version_id) == (1, back.id)


async def test_an_optimization_that_may_deploy_is_held_back_as_well() -> None:
    at = await House().furnish(gates=Gates(min_score=0.95))
    done = await at.take(await at.order(deploy=True))
    assert done.result is not None
    assert (done.state, done.result["version"], done.result["deployed"]) == ("completed", 2, False)
    assert "needs 0.95" in done.result["not_deployed"]
    assert (await at.version(1)).status == "deployed"


def made(number: int, lineage: dict[str, Any] | None, parent: int | None = None) -> Version:
    of = None if parent is None else f"v{parent}"
    return replace(version(program(), number=number), id=f"v{number}", parent_id=of, lineage=lineage)


def seen(score: float, baseline: float, **more: Any) -> dict[str, Any]:
    metric = {"name": "f1"}
    return {
        **LINEAGE,
        "optimization": f"o{score}",
        "score": score,
        "baseline_score": baseline,
        "metric": metric,
        **more,
    }


@pytest.mark.parametrize(
    ("newest", "present", "told"),
    [
        (
            made(3, None),
            made(2, seen(0.9, 0.5)),
            "no score on held-out examples; version 2, which answers, scored 0.9",
        ),
        (
            made(3, seen(0.7, 0.6), 1),
            made(2, seen(0.9, 0.6), 1),
            "scored 0.7 (by optimization o0.7, f1 on d@1)",
        ),
        # By the score that it had beside the newest, not by that of its own optimization.
        (
            made(3, seen(0.7, 0.8), 2),
            made(2, seen(0.6, 0.5), 1),
            "which answers, scored 0.8 (by optimization o0.7",
        ),
        (made(2, seen(0.7, 0.8), 1), made(1, None), "scored 0.7"),
        (
            made(3, seen(0.7, 0.6, scored_on="train"), 2),
            made(2, seen(0.6, 0.5), 1),
            "no score on held-out examples",
        ),
    ],
)
def test_the_newest_is_refused_where_it_is_known_to_be_no_better(
    newest: Version, present: Version, told: str
) -> None:
    with pytest.raises(Conflict) as refused:
        check_no_worse(newest, present)
    assert refused.value.code == "version_unclear"
    assert told in refused.value.message


@pytest.mark.parametrize(
    ("newest", "present"),
    [
        (made(2, None), made(1, None)),
        (made(2, seen(0.7, 0.5, scored_on="train"), 1), made(1, None)),
        (made(2, seen(0.7, 0.5), 1), made(1, None)),
        (made(3, seen(0.7, 0.6), 2), made(2, seen(0.9, 0.5), 1)),
        (made(3, seen(0.9, 0.6), 1), made(2, seen(0.9, 0.5), 1)),
    ],
)
def test_the_newest_answers_where_nothing_says_that_it_is_worse(newest: Version, present: Version) -> None:
    check_no_worse(newest, present)


def test_what_a_score_was_measured_on_is_told() -> None:
    held_out = {
        "validation": {"name": "held", "version": 2},
        "metric": {"name": "python", "reference": "m:f"},
    }
    measured = measured_by_lineage(made(2, {**LINEAGE, **held_out}))
    assert measured is not None
    assert measured.by == "optimization o, m:f on held@2"
