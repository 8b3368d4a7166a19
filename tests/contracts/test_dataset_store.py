"""What every store of datasets promises."""

from collections.abc import Sequence
from typing import Any

import pytest

from dspex.datasets.ports import DatasetStore
from dspex.datasets.records import Counts, Dataset, Row
from dspex.kit.errors import Conflict, Invalid
from dspex.kit.ids import id_at, new_id
from tests import making
from tests.contracts.conftest import Stores
from tests.making import NOON, minutes, row

BYTES = 1_000_000


@pytest.fixture
def store(stores: Stores) -> DatasetStore:
    return stores.datasets


def dataset(name: str = "tickets", **changes: Any) -> Dataset:
    return making.dataset(name, **{"project": "p", **changes})


async def published(store: DatasetStore, one: Dataset, rows: Sequence[Row] = ()) -> Dataset:
    await store.stage(one)
    if rows:
        await store.add(one.project, one.id, rows)
    ((done, _),) = await store.publish([one])
    return done


async def test_a_version_is_seen_when_it_is_whole(store: DatasetStore) -> None:
    one = dataset()
    await store.stage(one)
    rows = [row(1), row(2), row(3, provenance={"execution_id": "e"}, metadata={"m": 1})]
    await store.add("p", one.id, rows[:2])
    await store.add("p", one.id, rows[2:])
    assert await store.latest("p", "tickets") is None
    assert (await store.list("p", kind=None, limit=9, cursor=None)).data == ()
    ((done, is_new),) = await store.publish([one])
    assert is_new and done.version == 1
    assert await store.latest("p", "tickets") == done == await store.get("p", "tickets", 1)
    assert await store.latest("q", "tickets") is None and await store.get("p", "tickets", 2) is None
    assert await store.get("p", "tickets", 2**40) is None
    found = await store.rows("p", one.id, after=0, limit=9, most_bytes=BYTES)
    assert list(found) == rows
    assert list(found[0].inputs) == ["b", "a"]
    assert await store.row("p", one.id, rows[2].id) == rows[2]
    assert await store.row("p", one.id, new_id()) is None
    assert await store.rows("q", one.id, after=0, limit=9, most_bytes=BYTES) == []


async def test_rows_come_in_pages_of_bounded_size(store: DatasetStore) -> None:
    one, rows = dataset(), [row(position) for position in range(1, 8)]
    await published(store, one, rows)
    size = rows[0].size

    async def page(after: int, limit: int, most: int) -> list[int]:
        found = await store.rows("p", one.id, after=after, limit=limit, most_bytes=most)
        return [each.position for each in found]

    assert await page(0, 3, BYTES) == [1, 2, 3]
    assert await page(3, 9, BYTES) == [4, 5, 6, 7]
    assert await page(0, 9, 2 * size) == [1, 2]
    assert await page(0, 9, 1) == [1]
    assert await page(7, 9, BYTES) == []
    at = await store.rows_at("p", one.id, [6, 2, 99], most_bytes=BYTES)
    assert [each.position for each in at] == [2, 6]
    assert [each.position for each in await store.rows_at("p", one.id, [6, 2], most_bytes=1)] == [2]
    digests = await store.digests("p", one.id, after=5, limit=9)
    assert digests == [(6, rows[5].inputs_digest), (7, rows[6].inputs_digest)]


async def test_the_same_content_is_the_same_version(store: DatasetStore) -> None:
    first = await published(store, dataset())
    second = await published(store, dataset(digest="d2"))
    same = dataset(description="again")
    await store.stage(same)
    assert await store.publish([same]) == [(first, False)]
    await store.drop("p", [same.id])
    other_kind = await published(store, dataset(kind="test"))
    assert [one.version for one in (first, second, other_kind)] == [1, 2, 3]
    newest = await store.versions("p", "tickets", limit=2, cursor=None)
    assert [one.version for one in newest.data] == [3, 2]
    last = await store.versions("p", "tickets", limit=2, cursor=newest.next_cursor)
    assert (last.data, last.next_cursor) == ((first,), None)


async def test_the_latest_of_each_are_listed_by_name(store: DatasetStore) -> None:
    for name in ("b", "a", "c"):
        await published(store, dataset(name))
    await published(store, dataset("a", digest="d2", kind="test"))
    await published(store, dataset("z", project="q"))
    page = await store.list("p", kind=None, limit=2, cursor=None)
    assert [(one.name, one.version) for one in page.data] == [("a", 2), ("b", 1)]
    rest = await store.list("p", kind=None, limit=2, cursor=page.next_cursor)
    assert ([one.name for one in rest.data], rest.next_cursor) == (["c"], None)
    of_kind = await store.list("p", kind="training", limit=9, cursor=None)
    assert [one.name for one in of_kind.data] == ["b", "c"]
    with pytest.raises(Invalid):
        await store.list("p", kind=None, limit=2, cursor="nonsense")


async def test_several_are_published_together_or_not_at_all(store: DatasetStore) -> None:
    one, lost = dataset("one"), dataset("lost")
    await store.stage(one)
    with pytest.raises(Conflict) as refused:
        await store.publish([one, lost])
    assert refused.value.code == "dataset_upload_lost"
    assert await store.latest("p", "one") is None
    await store.stage(lost)
    assert [done.name for done, _ in await store.publish([one, lost])] == ["one", "lost"]


async def test_deleted_versions_are_gone_and_their_numbers_with_them(store: DatasetStore) -> None:
    first = await published(store, dataset(), [row(1), row(2)])
    second = await published(store, dataset(digest="d2"), [row(1)])
    assert [one.id for one in await store.delete("p", "tickets", 2, at=NOON)] == [second.id]
    assert await store.delete("p", "tickets", 2, at=NOON) == []
    assert await store.delete("p", "tickets", 2**40, at=NOON) == []
    assert await store.latest("p", "tickets") == first
    assert await store.counts("p", second.id) == Counts(0, 0, 0)
    assert [one.id for one in await store.delete("p", "tickets", None, at=NOON)] == [first.id]
    assert await store.delete("p", "tickets", None, at=NOON) == []
    assert (await store.list("p", kind=None, limit=9, cursor=None)).data == ()
    # The same content as a deleted one is new.
    assert (await published(store, dataset())).version == 3


async def test_what_was_staged_and_left_is_swept(store: DatasetStore) -> None:
    kept, fresh = await published(store, dataset("kept"), [row(1)]), dataset("fresh")
    old = dataset("old", id=id_at(NOON - minutes(5)))
    await store.stage(old)
    await store.add("p", old.id, [row(1)])
    await store.stage(fresh)
    assert await store.prune(older_than_id=id_at(NOON)) == 1
    with pytest.raises(Conflict):
        await store.add("p", old.id, [row(2)])
    with pytest.raises(Conflict):
        await store.publish([old])
    assert await store.counts("p", old.id) == Counts(0, 0, 0)
    assert await store.counts("p", kept.id) == Counts(1, 1, 1)
    await store.add("p", fresh.id, [row(1)])
    await store.drop("p", [fresh.id])
    with pytest.raises(Conflict):
        await store.publish([fresh])
    # Nothing is dropped that is published.
    await store.drop("p", [kept.id])
    assert await store.latest("p", "kept") == kept
    assert await store.counts("p", kept.id) == Counts(1, 1, 1)


async def test_counts_and_who_holds_a_row(store: DatasetStore) -> None:
    shared = row(1, {"q": "x"})
    rows = [shared, row(2, {"q": "x"}), row(3, {"q": "y"})]
    first = await published(store, dataset(), rows)
    second = await published(store, dataset("other"), [shared])
    assert await store.counts("p", first.id) == Counts(3, 2, 2)
    assert await store.holding("p", shared.id) == [second, first]
    assert await store.holding("q", shared.id) == []
    await store.delete("p", "other", None, at=NOON)
    assert await store.holding("p", shared.id) == [first]
