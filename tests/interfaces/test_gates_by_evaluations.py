"""Deploying past a gate on the evidence of an evaluation."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from dspex.datasets.records import Example, NewDataset
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import Score
from dspex.evaluations.records import Numbers
from dspex.evaluations.scoring import Answered, Scoring
from dspex.optimizations.rules import held_out
from tests.interfaces.keyed import client_with, key_for, keyed_node
from tests.interfaces.node import mock_program
from tests.unit.evaluations.working import House, Parts, prepared, right


@pytest.fixture
async def house() -> House:
    return House(parts=Parts(right))


@pytest.fixture
async def client(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with house.node.client() as client:
        await prepared(client)
        yield client


async def gated(client: httpx.AsyncClient, faults: int = 0, **gates: Any) -> int:
    """A second version, which fails on so many of the ten rows; nothing without evidence is let through."""
    assert (await client.post("/v1/programs/qa/gates", json=gates)).status_code == 200
    rules = [{"when": {"question": f"{at}?"}, "fault": {"kind": "internal"}} for at in range(1, faults + 1)]
    mock = {"outputs": {"answer": "no"}, "rules": rules}
    made = await client.post("/v1/programs/qa/versions", json={"mock": mock, "initialize": True})
    assert made.status_code == 201, made.text
    number: int = made.json()["version"]
    return number


async def deploy(client: httpx.AsyncClient, version: int, evaluation: str) -> tuple[int, str]:
    body = {"version": version, "evaluation": evaluation}
    answer = await client.post("/v1/programs/qa/deploy", json=body)
    return answer.status_code, answer.json().get("detail", "")


async def test_all_rows_and_a_good_score_let_it_through(house: House, client: httpx.AsyncClient) -> None:
    version = await gated(client, min_score=0.95, max_cost_usd_per_call=1)
    evaluation = await house.ask(client, version=version)
    assert (await deploy(client, version, evaluation))[0] == 409
    await house.take(evaluation)
    assert (await deploy(client, version, evaluation))[0] == 200


async def test_some_of_the_rows_are_not_enough(house: House, client: httpx.AsyncClient) -> None:
    version = await gated(client, min_score=0.95)
    evaluation = await house.ask(client, version=version, limit=1)
    await house.take(evaluation)
    status, detail = await deploy(client, version, evaluation)
    assert status == 409
    assert "1 of 10 rows" in detail


async def test_what_it_fails_on_is_no_right_answer(house: House, client: httpx.AsyncClient) -> None:
    version = await gated(client, faults=9, min_score=0.95)
    evaluation = await house.ask(client, version=version)
    ended = await house.take(evaluation)
    assert ended.result is not None
    assert (ended.result["mean"], ended.result["failed"]) == (1.0, 9)
    assert (await deploy(client, version, evaluation))[0] == 409


@pytest.mark.parametrize("failing", [1, 9])
async def test_a_metric_that_gives_no_score_is_no_evidence(failing: int) -> None:
    async def say(answered: Answered) -> Scoring:
        if int(answered.inputs["question"].rstrip("?")) <= failing:
            return Scoring(None, failed=MetricFailed("no words", code="metric_failed"))
        return Scoring(Score(1.0))

    house = House(parts=Parts(say))
    async with house.node.client() as client:
        await prepared(client)
        version = await gated(client, min_score=0.95)
        evaluation = await house.ask(client, version=version)
        await house.take(evaluation)
        status, detail = await deploy(client, version, evaluation)
    assert status == 409
    assert f"{failing} of 10 examples have no score" in detail
    # One that completed is not retried.
    assert "Evaluate again (POST /v1/evaluations)" in detail and "retry" not in detail.lower()


@pytest.mark.parametrize("generations", [1, 2])
async def test_what_it_learned_from_is_no_evidence(
    house: House, client: httpx.AsyncClient, generations: int
) -> None:
    """Nor what the version learned from that it was made from."""
    await gated(client, min_score=0.95)
    programs = house.node.services.programs
    program = await programs.get("default", "qa")
    dataset = await house.node.services.datasets.get("default", "rows")
    made = await programs.current(program)
    for number in range(generations):
        digest = dataset.digest if number == 0 else "others"
        definition = replace(made.definition, mock={"outputs": {"answer": f"{number}"}})
        lineage = {"optimization": "o", "dataset": {"name": "rows", "version": 1, "digest": digest}}
        made = await programs.add_version(program, definition, parent_id=made.id, lineage=lineage)
        (made,) = await programs.initialize([made])
    evaluation = await house.ask(client, version=made.number)
    await house.take(evaluation)
    status, detail = await deploy(client, made.number, evaluation)
    assert status == 409
    assert "version 3 was optimized on" in detail


@pytest.mark.parametrize(("kept", "status"), [("train", 409), ("held", 200), ("deleted", 409)])
async def test_rows_it_learned_from_are_no_evidence_in_another_dataset(
    house: House, client: httpx.AsyncClient, kept: str, status: int
) -> None:
    await gated(client, min_score=0.95)
    services = house.node.services
    program = await services.programs.get("default", "qa")
    dataset = await services.datasets.get("default", "rows")
    rows = (await services.datasets.rows(dataset, limit=99, cursor=None)).data
    train, held = held_out(rows, 0.3, 0)
    made = await services.programs.current(program)
    lineage = {
        "optimization": "o",
        "dataset": {"name": "rows", "version": 1, "digest": dataset.digest},
        "validation": {"share": 0.3, "seed": 0},
        "train_rows": len(train),
    }
    definition = replace(made.definition, mock={"outputs": {"answer": "x"}})
    made = await services.programs.add_version(program, definition, parent_id=made.id, lineage=lineage)
    (made,) = await services.programs.initialize([made])
    chosen = [*held, train[0]] if kept == "train" else held
    await services.datasets.create(
        "default", NewDataset("cheat"), [Example(row.inputs, row.outputs) for row in chosen]
    )
    if kept == "deleted":
        await services.datasets.delete("default", "rows")
    evaluation = await house.ask(client, version=made.number, dataset="cheat")
    await house.take(evaluation)
    found, detail = await deploy(client, made.number, evaluation)
    assert found == status, detail
    told = {"train": "1 of 4 rows of 'cheat'", "held": "", "deleted": "'rows@1', which was deleted"}
    assert told[kept] in detail


async def test_answers_from_a_cache_show_no_costs(
    house: House, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = await gated(client, max_cost_usd_per_call=1)
    evaluation = await house.ask(client, version=version)
    await house.take(evaluation)
    numbers = house.node.evaluations.numbers

    async def cached(*asked: Any, **more: Any) -> list[Numbers]:
        return [replace(one, cached=True) for one in await numbers(*asked, **more)]

    monkeypatch.setattr(house.node.evaluations, "numbers", cached)
    status, detail = await deploy(client, version, evaluation)
    assert status == 409
    assert "with `use_cache` false" in detail


async def test_what_the_metric_costs_is_no_cost_of_a_prediction() -> None:
    async def dear(answered: Answered) -> Scoring:
        return Scoring(Score(1.0), cost_usd=2.0)

    house = House(parts=Parts(dear))
    async with house.node.client() as client:
        await prepared(client)
        version = await gated(client, max_cost_usd_per_call=1)
        evaluation = await house.ask(client, version=version)
        await house.take(evaluation)
        report = (await client.get(f"/v1/evaluations/{evaluation}")).json()["result"]
        assert (report["cost_usd"], report["metric_cost_usd"]) == (20.0, 20.0)
        results = (await client.get(f"/v1/evaluations/{evaluation}/results")).json()["data"]
        assert [(one["cost_usd"], one["metric_cost_usd"]) for one in results] == [(2.0, 2.0)] * 10
        assert (await deploy(client, version, evaluation))[0] == 200


async def test_reports_of_before_metrics_were_counted_apart_say_so(
    house: House, client: httpx.AsyncClient
) -> None:
    evaluation = await house.ask(client)
    ended = await house.take(evaluation)
    before = {name: value for name, value in (ended.result or {}).items() if name != "metric_cost_usd"}
    house.node.evaluations.rows["default", evaluation] = replace(ended, result=before)
    report = (await client.get(f"/v1/evaluations/{evaluation}")).json()["result"]
    assert report == {**before, "metric_cost_usd": None}


async def test_a_deployment_without_a_version_goes_by_the_evaluation(
    house: House, client: httpx.AsyncClient
) -> None:
    version = await gated(client, min_score=0.95)
    evaluation = await house.ask(client, version=version)
    await house.take(evaluation)
    newer = {"mock": {"outputs": {"answer": "newer"}}, "initialize": True}
    assert (await client.post("/v1/programs/qa/versions", json=newer)).json()["version"] == version + 1
    answer = await client.post("/v1/programs/qa/deploy", json={"evaluation": evaluation})
    assert answer.status_code == 200, answer.text
    by = f"evaluation {evaluation}, exact_match on rows@1"
    assert answer.json()["deployed_version"] == version
    assert answer.json()["measured"] == {"score": 1.0, "cost_usd_per_call": 0.0, "by": by}
    entries = (await client.get("/v1/audit")).json()["data"]
    (deployment,) = [one for one in entries if one["action"] == "program.deploy" and one["target"] == "qa"]
    assert deployment["details"] == {
        "evaluation": evaluation,
        "version": version,
        "before": 1,
        "force": False,
    }


async def test_an_evaluation_of_another_program_names_no_version(
    house: House, client: httpx.AsyncClient
) -> None:
    evaluation = await house.ask(client)
    await house.take(evaluation)
    await mock_program(client, "other")
    answer = await client.post("/v1/programs/other/deploy", json={"evaluation": evaluation})
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_evaluation")
    assert "of version 1 of 'qa'" in answer.json()["detail"]


async def test_a_refusal_names_the_newest_evaluation_of_the_version(
    house: House, client: httpx.AsyncClient
) -> None:
    version = await gated(client, min_score=0.95)
    refused = await client.post("/v1/programs/qa/deploy")
    assert refused.json()["code"] == "gate_not_met"
    assert f"Version {version} of 'qa'" in refused.json()["detail"]
    assert "The newest of version" not in refused.json()["detail"]
    others = await house.ask(client, version=1)
    for asked in (
        await house.ask(client, version=version),
        evaluation := await house.ask(client, version=version),
    ):
        await house.take(asked)
    await house.take(others)
    unfinished = await house.ask(client, version=version)
    refused = await client.post("/v1/programs/qa/deploy")
    assert (refused.status_code, refused.json()["code"]) == (409, "gate_not_met")
    told = (
        f"The newest of version {version}: evaluation {evaluation}, exact_match on rows@1, with a mean of 1."
    )
    assert told in refused.json()["detail"]
    assert unfinished not in refused.json()["detail"]


async def test_the_newest_does_not_answer_in_the_place_of_a_better_one_unless_it_is_meant(
    house: House, client: httpx.AsyncClient
) -> None:
    programs = house.node.services.programs
    program = await programs.get("default", "qa")
    first = await programs.current(program)
    source = {"name": "rows", "version": 1, "digest": "x"}
    for number, score in ((2, 0.9), (3, 0.7)):
        definition = replace(first.definition, mock={"outputs": {"answer": f"{number}"}})
        lineage = {
            "optimization": f"o{number}",
            "dataset": source,
            "metric": {"name": "f1"},
            "scored_on": "validation",
        }
        lineage |= {"score": score, "baseline_score": 0.5}
        made = await programs.add_version(program, definition, parent_id=first.id, lineage=lineage)
        await programs.initialize([made])
        if number == 2:
            # Beside the first, which answers, it did better.
            answer = await client.post("/v1/programs/qa/deploy")
            assert answer.json()["measured"]["by"] == "optimization o2, f1 on rows@1"
    refused = await client.post("/v1/programs/qa/deploy", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "version_unclear")
    for told in (
        "Version 3",
        "scored 0.7 (by optimization o3",
        "version 2",
        "scored 0.9 (by optimization o2",
    ):
        assert told in refused.json()["detail"]
    for meant in ({"version": 3}, {"version": 2}, {"force": True}):
        assert (await client.post("/v1/programs/qa/deploy", json=meant)).status_code == 200


async def test_a_refusal_names_no_evaluation_to_who_may_read_none() -> None:
    house = House(keyed_node(), parts=Parts(right))
    async with client_with(house.node, await key_for(house.node)) as client:
        await prepared(client)
        version = await gated(client, min_score=0.95)
        evaluation = await house.ask(client, version=version)
        await house.take(evaluation)
        detail = (await client.post("/v1/programs/qa/deploy")).json()["detail"]
        assert evaluation in detail
    key = await key_for(house.node, scopes=["programs:write"])
    async with client_with(house.node, key) as client:
        refused = await client.post("/v1/programs/qa/deploy")
        assert refused.json()["code"] == "gate_not_met"
        assert evaluation not in refused.json()["detail"]
