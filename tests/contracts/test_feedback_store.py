"""What every store of feedback promises."""

from typing import Any

import pytest

from dspex.executions.feedback.ports import FeedbackStore
from dspex.executions.feedback.records import ExampleFilter, Feedback
from dspex.kit.ids import new_id
from tests.contracts.conftest import Stores
from tests.making import NOON, execution, minutes


@pytest.fixture
def store(stores: Stores) -> FeedbackStore:
    return stores.feedback


def feedback(execution_id: str, **said: Any) -> Feedback:
    return Feedback(new_id(), "p", execution_id, NOON, **said)


async def test_feedback_comes_back_oldest_first(store: FeedbackStore) -> None:
    first = feedback("e1", score=-0.5, label="bad", key_id="k")
    second = feedback("e1", correction={"b": "\x00", "a": None}, comment="no\x00")
    other = feedback("e2", score=1.0)
    for one in (first, second, other):
        assert await store.add(one, most=2)
    assert list(await store.of("p", ["e1"])) == [first, second]
    assert list(await store.of("p", ["e1", "e2", "e3"])) == [first, second, other]
    assert await store.of("q", ["e1"]) == []
    assert not await store.add(feedback("e1", score=0.0), most=2)
    assert len(await store.of("p", ["e1"])) == 2


async def test_candidates_are_executions_that_are_over_in_order(stores: Stores, store: FeedbackStore) -> None:
    given: list[dict[str, Any]] = [
        {"version": 1},
        {"version": 2},
        {"status": "failed", "version": 2},
        {"status": "running"},
        {"program": "other"},
        {"project": "q"},
        {"created_at": NOON + minutes(5)},
    ]
    ran = [execution(**{"project": "p", "id": f"e{index}", **one}) for index, one in enumerate(given)]
    for one in ran:
        await stores.recorder.record(one, certain=True)
    await store.add(feedback("e1", score=1.0), most=9)
    await store.add(feedback("e2", correction={"answer": "x"}), most=9)
    await store.add(feedback("e4", score=1.0), most=9)

    async def found(after: str = "", limit: int = 9, **where: Any) -> list[str]:
        return list(await store.candidates("p", ExampleFilter("qa", **where), after=after, limit=limit))

    assert await found(only="all") == ["e0", "e1", "e2", "e6"]
    assert await found(only="all", after="e0", limit=2) == ["e1", "e2"]
    assert await found() == ["e1", "e2"]
    assert await found(only="corrections") == ["e2"]
    assert await found(only="all", version=2) == ["e1", "e2"]
    assert await found(only="all", version=2**40) == []
    assert await found(only="all", since=NOON + minutes(1)) == ["e6"]
    assert await found(only="all", until=NOON + minutes(1)) == ["e0", "e1", "e2"]


async def test_feedback_goes_with_its_execution(stores: Stores, store: FeedbackStore) -> None:
    await stores.recorder.record(execution(id="e1", project="p"), certain=True)
    await store.add(feedback("e1", score=1.0), most=9)
    await store.add(feedback("gone", score=1.0), most=9)
    assert await store.prune() == 1
    assert await store.prune() == 0
    assert len(await store.of("p", ["e1", "gone"])) == 1
