"""Scorers that ask: models, and metrics in Python."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from dspex.access.records import LOCAL_OPERATOR
from dspex.configuration.settings import Settings
from dspex.evaluations.budget import Cap
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.judging import JUDGE
from dspex.evaluations.metrics.records import MetricSpec, Score
from dspex.evaluations.ports import MetricTask
from dspex.evaluations.python_scoring import NoPool
from dspex.evaluations.scoring import Answered, GroupScorer, JudgeScorer, Scoring, SimilarityScorer
from dspex.executions.errors import WorkerDied
from dspex.executions.ports import PoolHost
from dspex.executions.records import Execution, ExecutionFilter
from dspex.gateway.records import CallContext
from dspex.kit.errors import Invalid, Unavailable
from dspex.programs.definitions import choose_model, define
from dspex.programs.records import ProgramSettings
from tests.interfaces.node import TestNode
from tests.making import evaluation


def answered(answer: str = "four", expected: str = "4") -> Answered:
    return Answered("e", {"question": "2+2?"}, {"answer": expected}, {"answer": answer})


class Kept:
    """A keeper that remembers."""

    cap = None

    def __init__(self) -> None:
        self.executions: list[Execution] = []

    async def own(self) -> None: ...

    async def keep(self, execution: Execution) -> Execution | None:
        self.executions.append(execution)
        return execution


async def judge(says: Any, kept: Kept) -> JudgeScorer:
    node = TestNode()
    lm = choose_model(node.settings.models, None)
    mock = says if "rules" in says else {"outputs": {"score": says["score"]}}
    definition = define(JUDGE, "predict", "chat", lm, mock=mock)
    predictions = node.services.predictions
    runnable = await predictions.ready("default", "adhoc", definition, ProgramSettings())
    return JudgeScorer(MetricSpec("lm_judge"), "v", runnable, predictions, kept, None)


async def test_a_judge_is_a_program_that_is_on_record() -> None:
    kept = Kept()
    scorer = await judge({"score": 0.75}, kept)
    assert (await scorer.score(answered(), LOCAL_OPERATOR)).score == Score(0.75)
    (execution,) = kept.executions
    assert execution.metadata == {"evaluation": "v", "judges": "e"}
    assert (execution.inputs["expected"], execution.inputs["answer"]) == ("4", "four")
    out = await (await judge({"score": 1.75}, kept)).score(answered(), LOCAL_OPERATOR)
    assert out.failed is not None and out.failed.code == "bad_score"
    fault = {"rules": [{"fault": {"kind": "unavailable"}}]}
    away = await (await judge(fault, kept)).score(answered(), LOCAL_OPERATOR)
    assert away.error is not None and away.error.code == "scripted_fault"


async def test_what_can_not_be_asked_is_no_score() -> None:
    scorer = await judge({"score": 0.75}, Kept())
    with pytest.raises(MetricFailed) as told:
        await scorer.score(answered("x" * 2_000_000), LOCAL_OPERATOR)
    assert told.value.code == "inputs_too_large"


async def test_similarity_is_by_vectors() -> None:
    models = {
        "default": "simulator",
        "registry": {
            "simulator": {"model": "simulator/chat"},
            "vectors": {"model": "simulator/embed", "model_type": "embedding"},
        },
    }
    node = TestNode(Settings.model_validate({"log_level": "error", "models": models}))

    def scorer(**options: Any) -> SimilarityScorer:
        spec = MetricSpec("semantic_similarity", **options)
        return SimilarityScorer(spec, "v", "vectors", node.services.embeddings, None)

    same = await scorer().score(answered("four", "four"), LOCAL_OPERATOR)
    assert same.score is not None and same.score.value == pytest.approx(1.0)
    other = await scorer().score(answered("four", "something else"), LOCAL_OPERATOR)
    assert other.score is not None and 0.0 <= other.score.value < 1.0
    strict = await scorer(threshold=0.999).score(answered("four", "something else"), LOCAL_OPERATOR)
    assert strict.score is not None and strict.score.value == 0.0
    empty = await scorer().score(answered("", " "), LOCAL_OPERATOR)
    assert (empty.score and empty.score.value, empty.lm_calls) == (1.0, 0)
    half = await scorer().score(answered("", "four"), LOCAL_OPERATOR)
    assert half.score is not None and half.score.value == 0.0
    with pytest.raises(MetricFailed) as told:
        await scorer().score(answered("\ud800", "four"), LOCAL_OPERATOR)
    assert told.value.code == "not_encodable"


async def test_embeddings_that_a_budget_has_no_room_for_are_no_failure_of_their_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = TestNode()

    async def refuse(request: Any, call: CallContext) -> None:
        assert call.cap is not None
        await call.cap.reserve(2.0)

    embeddings = node.services.embeddings
    monkeypatch.setattr(embeddings._gateway, "embed", refuse)
    spec = MetricSpec("semantic_similarity")
    scorer = SimilarityScorer(spec, "v", "vectors", embeddings, None, Cap(1.0, 0.0))
    refused = await scorer.score(answered("four", "4"), LOCAL_OPERATOR)
    assert refused.error is not None and refused.error.code == "evaluation_budget"
    (kept,) = await accounts(node)
    assert (kept.program, kept.status, kept.cost_usd) == ("embeddings", "cancelled", 0.0)


async def accounts(node: TestNode) -> Sequence[Execution]:
    where = ExecutionFilter()
    return (await node.executions.list("default", where, sort="created_at", limit=9, cursor=None)).data


async def test_examples_that_come_together_are_scored_together() -> None:
    groups: list[int] = []

    async def run(group: Sequence[Answered], _: Any) -> Sequence[Scoring]:
        groups.append(len(group))
        return [Scoring(Score(float(len(one.outputs["answer"])))) for one in group]

    scorer = GroupScorer(run)
    asked = [scorer.score(answered("x" * size), LOCAL_OPERATOR) for size in range(60)]
    found = await asyncio.gather(*asked)
    assert [one.score and one.score.value for one in found] == [float(size) for size in range(60)]
    assert groups == [50, 10]
    await scorer.aclose()


async def test_a_group_that_fails_fails_each_of_it() -> None:
    async def run(group: Sequence[Answered], _: Any) -> Sequence[Scoring]:
        raise ValueError("no")

    scorer = GroupScorer(run)
    with pytest.raises(ValueError, match="no"):
        await scorer.score(answered(), LOCAL_OPERATOR)
    await scorer.aclose()


class Pools:
    """Of one answer every worker dies."""

    def __init__(self) -> None:
        self.tasks: list[int] = []

    async def score(self, task: MetricTask, host: PoolHost) -> Sequence[Score | MetricFailed]:
        self.tasks.append(len(task.cases))
        if any(one.outputs["answer"] == "die" for one in task.cases):
            raise WorkerDied("it died")
        if any(one.outputs["answer"] == "ask" for one in task.cases):
            message = {"role": "user", "content": "?"}
            asked = {"alias": None, "model": task.lm["model"], "messages": [message], "options": {}}
            await host.complete({**asked, "rollout_id": None, "adapter": "chat", "step": None})
        return [MetricFailed("no") if one.outputs["answer"] == "bad" else Score(1.0) for one in task.cases]


async def test_a_worker_that_dies_takes_one_example_along() -> None:
    pools = Pools()
    node = TestNode(metric_pools=pools)
    kept = Kept()
    made = evaluation(metric=MetricSpec("python", reference="shop.metrics:kinds"))
    scorer = await node.services.evaluations.metrics.scorer(made, kept)
    answers = ["fine", "die", "bad", "fine"]
    found = await asyncio.gather(*(scorer.score(answered(one), LOCAL_OPERATOR) for one in answers))
    assert found[0].score == found[3].score == Score(1.0)
    assert found[1].error is not None and found[1].error.code == "worker_died"
    assert found[2].failed is not None
    assert pools.tasks == [4, 1, 1, 1, 1]
    assert kept.executions == []
    await scorer.aclose()


async def test_without_dspy_an_evaluation_fails_and_does_not_wait() -> None:
    class Away:
        async def score(self, task: MetricTask, host: PoolHost) -> Sequence[Score | MetricFailed]:
            raise Unavailable("DSPy is not installed.", code="no_pool")

    node = TestNode(metric_pools=Away())
    made = evaluation(metric=MetricSpec("python", reference="shop.metrics:kinds"))
    scorer = await node.services.evaluations.metrics.scorer(made, Kept())
    with pytest.raises(NoPool) as told:
        await scorer.score(answered(), LOCAL_OPERATOR)
    assert (told.value.kind, told.value.code, isinstance(told.value, Unavailable)) == (
        "unavailable",
        "no_pool",
        False,
    )


async def test_what_a_metric_asks_of_models_is_on_record_and_shared_out() -> None:
    node = TestNode(metric_pools=Pools())
    kept = Kept()
    made = evaluation(metric=MetricSpec("python", reference="shop.metrics:judged"))
    scorer = await node.services.evaluations.metrics.scorer(made, kept)
    found = await asyncio.gather(*(scorer.score(answered(one), LOCAL_OPERATOR) for one in ("ask", "fine")))
    (execution,) = kept.executions
    assert execution.metadata == {"evaluation": made.id}
    assert execution.inputs == {"metric": "shop.metrics:judged", "examples": 2}
    assert len(execution.calls) == 1 and execution.usage["total_tokens"] > 0
    assert sum(one.lm_calls for one in found) == 1
    assert sum(one.tokens for one in found) == execution.usage["total_tokens"]
    await scorer.aclose()


async def test_a_metric_that_cannot_be_imported_is_refused_where_a_worker_can_look() -> None:
    class Looking:
        outcome: Exception = Invalid("shop.metrics has no 'nope'.", code="bad_metric")

        async def score(self, task: MetricTask, host: PoolHost) -> Sequence[Score | MetricFailed]:
            assert (task.reference, task.cases) == ("shop.metrics:nope", ())
            raise self.outcome

    pools = Looking()
    check = TestNode(metric_pools=pools).services.evaluations.metrics.check_code
    metric = MetricSpec("python", reference="shop.metrics:nope")
    with pytest.raises(Invalid, match="has no 'nope'") as refused:
        await check(metric, LOCAL_OPERATOR)
    assert [one.pointer for one in refused.value.problems] == ["/metric/reference"]
    # Whoever scores with it finds out.
    for passing in (Unavailable("no worker", code="no_pool"), WorkerDied("it died"), TimeoutError()):
        pools.outcome = passing
        await check(metric, LOCAL_OPERATOR)
    await check(MetricSpec("f1"), LOCAL_OPERATOR)
