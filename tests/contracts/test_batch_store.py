"""What every store of batches promises."""

import pytest

from dspex.executions.batches.ports import BatchStore
from dspex.executions.batches.records import BatchItem
from dspex.jobs import rules
from dspex.jobs.records import Completed
from dspex.kit.ids import id_at, new_id
from tests.contracts.conftest import Stores
from tests.contracts.test_job_store import begun, job
from tests.making import NOON, execution, minutes


@pytest.fixture
def store(stores: Stores) -> BatchStore:
    return stores.batches


def item(position: int) -> BatchItem:
    return BatchItem(position, f"e{position}", {"b": position, "a": "\x00"})


async def test_items_come_back_in_order_until_they_end(stores: Stores, store: BatchStore) -> None:
    await store.add("p", "1", [item(3), item(1)])
    await store.add("p", "1", [item(2)])
    await store.add("p", "2", [item(1)])
    batch = await begun(stores.jobs, job("1"))
    found = await store.open("p", "1", after=0, limit=2)
    assert found == [(item(1), None), (item(2), None)]
    assert await store.open("q", "1", after=0, limit=2) == []
    await stores.recorder.record(execution(id="e2", project="p", status="failed"))
    assert await store.open("p", "1", after=1, limit=9) == [(item(2), "failed"), (item(3), None)]
    refused = BatchItem(3, "e3", {}, "failed", {"kind": "invalid", "problems": []})
    assert await store.settle(batch, [BatchItem(2, "e2", {}, "failed"), refused], {"failed": 2})
    assert [one.position for one, _ in await store.open("p", "1", after=0, limit=9)] == [1]
    assert await store.counts("p", "1") == {None: 1, "failed": 2}
    stored = await stores.jobs.get("p", "1")
    assert stored is not None and stored.progress == {"failed": 2}


async def test_only_who_has_the_batch_settles_its_items(stores: Stores, store: BatchStore) -> None:
    await store.add("p", "1", [item(1)])
    first = await begun(stores.jobs, job("1"))
    assert await stores.jobs.change(first, rules.begun(first, "m", NOON))
    assert not await store.settle(first, [BatchItem(1, "e1", {}, "completed")], {})
    assert await store.counts("p", "1") == {None: 1}


async def test_results_come_with_what_was_run(stores: Stores, store: BatchStore) -> None:
    await store.add("p", "1", [item(1), item(2), item(3)])
    batch = await begun(stores.jobs, job("1"))
    ran = execution(id="e1", project="p", outputs={"answer": "x"})
    await stores.recorder.record(ran)
    # It ran, but nobody has taken note yet.
    await stores.recorder.record(execution(id="e2", project="p"))
    error = {"kind": "invalid", "code": "x"}
    ended = [BatchItem(1, "e1", {}, "completed"), BatchItem(3, "e3", {}, "failed", error)]
    assert await store.settle(batch, ended, {})
    results = await store.results("p", "1", after=0, limit=2)
    assert [(one.item.position, one.item.state, one.execution) for one in results] == [
        (1, "completed", ran),
        (2, None, None),
    ]
    (last,) = await store.results("p", "1", after=2, limit=2)
    assert (last.item.error, last.execution) == (error, None)
    assert await store.results("p", "1", after=3, limit=2) == []


async def test_items_go_with_their_batch(stores: Stores, store: BatchStore) -> None:
    await store.add("p", "1", [item(1)])
    batch = await begun(stores.jobs, job("1"))
    assert await stores.jobs.change(batch, rules.settled(batch, Completed(), NOON))
    await stores.jobs.prune(completed_before=NOON + minutes(1))
    await store.prune(older_than_id="2")
    assert await store.counts("p", "1") == {}


async def test_items_without_a_batch_are_dropped(stores: Stores, store: BatchStore) -> None:
    await store.add("p", "01", [item(1)])
    await store.add("p", "02", [item(1)])
    await stores.jobs.add(job("02"))
    await store.add("p", new_id(), [item(1)])
    assert await store.prune(older_than_id=id_at(NOON)) == 1
    assert await store.counts("p", "02") == {None: 1}
    await store.drop("p", "02")
    assert await store.counts("p", "02") == {}
