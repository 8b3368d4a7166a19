"""What every store of the audit log promises."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.access.ports import AuditStore
from dspex.access.records import AuditEntry, AuditFilter
from dspex.kit.errors import Invalid
from tests.contracts.conftest import Stores
from tests.making import NOON, minutes

EVERYTHING = AuditFilter()


@pytest.fixture
def store(stores: Stores) -> AuditStore:
    return stores.audit


def entry(entry_id: str, **changes: Any) -> AuditEntry:
    made = AuditEntry(
        entry_id, "p", NOON, "cli", "key.create", "na\x00me", "started", None, {"b": 1, "a": [2]}
    )
    return replace(made, **changes)


async def test_an_entry_comes_back_exactly_and_is_concluded(store: AuditStore) -> None:
    made = entry("1", request_id="r")
    await store.add(made, entry("2", project="q"))
    assert (await store.list("p", EVERYTHING, limit=10, cursor=None)).data == (made,)
    concluded = replace(made, outcome="done", details={"c": 3})
    await store.conclude(concluded)
    assert (await store.list("p", EVERYTHING, limit=10, cursor=None)).data == (concluded,)


async def test_a_list_is_filtered_and_paged_from_the_newest(store: AuditStore) -> None:
    await store.add(
        *(entry(str(one), at=NOON + minutes(one // 2), actor="ab"[one % 2]) for one in range(6)),
        entry("7", action="key.revoke", at=NOON + minutes(9)),
    )

    async def ids(where: AuditFilter) -> list[str]:
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = await store.list("p", where, limit=2, cursor=cursor)
            found += [one.id for one in page.data]
            cursor = page.next_cursor
            if cursor is None:
                return found

    assert await ids(EVERYTHING) == ["7", "5", "4", "3", "2", "1", "0"]
    assert await ids(AuditFilter(actor="a")) == ["4", "2", "0"]
    assert await ids(AuditFilter(action="key.revoke")) == ["7"]
    assert await ids(AuditFilter(since=NOON + minutes(1), until=NOON + minutes(2))) == ["3", "2"]
    assert await ids(AuditFilter(action="key.create", actor="b", since=NOON + minutes(1))) == ["5", "3"]


async def test_old_entries_go_in_all_projects(store: AuditStore) -> None:
    await store.add(
        entry("1", at=NOON - timedelta(days=2)),
        entry("2", at=NOON - timedelta(days=2), project="q"),
        entry("3"),
    )
    assert await store.prune(older_than=NOON - timedelta(days=1)) == 2
    assert [one.id for one in (await store.list("p", EVERYTHING, limit=9, cursor=None)).data] == ["3"]
    assert await store.prune(older_than=NOON - timedelta(days=1)) == 0


async def test_a_foreign_cursor_is_refused(store: AuditStore) -> None:
    with pytest.raises(Invalid):
        await store.list("p", EVERYTHING, limit=2, cursor="nonsense")
