"""What every store of signatures promises."""

import asyncio
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from dspex.kit.errors import Conflict, Invalid, Missing
from dspex.kit.paging import encode_cursor
from dspex.signatures.document import parse_signature
from dspex.signatures.lifecycle import RegisteredSignature, digest
from dspex.signatures.ports import SignatureStore
from dspex.signatures.records import Signature
from tests.contracts.conftest import Stores

ORDERED = {
    "name": "order",
    "instructions": "Read the order.",
    "inputs": [
        {"name": "text", "description": "as received"},
        {"name": "limits", "type": "dict[str, float]", "default": {"zz": 1, "a": 2.5}},
    ],
    "outputs": [
        {
            "name": "items",
            "type": {
                "type": "array",
                "items": {
                    "type": "object",
                    "title": "Item",
                    "properties": {"zip": {"type": "string"}, "a": {"type": "integer", "minimum": 1}},
                    "required": ["zip"],
                },
            },
        },
        {"name": "ok", "type": "Literal['yes', 1, True]"},
    ],
}


@pytest.fixture
def store(stores: Stores) -> SignatureStore:
    return stores.signatures


def draft(text: str = "question -> answer", name: str = "qa", project: str = "p") -> RegisteredSignature:
    return registered(parse_signature(text), name, project)


def registered(signature: Signature, name: str = "qa", project: str = "p") -> RegisteredSignature:
    at = datetime(2024, 5, 31, 9, 30, 0, 123456, UTC)
    return RegisteredSignature(project, name, 0, signature, digest(signature), "draft", at)


async def test_versions_count_up_within_a_project_and_name(store: SignatureStore) -> None:
    added = [
        await store.add(draft()),
        await store.add(draft()),
        await store.add(draft(name="other")),
        await store.add(draft(project="q")),
    ]
    assert [one.version for one in added] == [1, 2, 1, 1]
    latest = await store.latest("p", "qa")
    assert latest is not None
    assert latest.version == 2


async def test_what_was_stored_comes_back_exactly(store: SignatureStore) -> None:
    added = await store.add(registered(parse_signature(ORDERED), "order"))
    found = await store.get("p", "order", 1)
    assert found == added
    assert found is not None
    assert repr(found.signature) == repr(parse_signature(ORDERED))
    assert digest(found.signature) == added.digest


async def test_unknown_ones_are_none(store: SignatureStore) -> None:
    await store.add(draft())
    assert await store.get("p", "qa", 2) is None
    assert await store.get("p", "qa", 0) is None
    assert await store.get("q", "qa", 1) is None
    assert await store.latest("p", "nothing") is None


async def test_the_same_signature_is_found_not_doubled(store: SignatureStore) -> None:
    results = await asyncio.gather(*(store.find_or_add(draft()) for _ in range(10)))
    assert sorted(new for _, new in results) == [False] * 9 + [True]
    assert {one.version for one, _ in results} == {1}
    different, new = await store.find_or_add(draft("question -> answer: int"))
    assert (different.version, new) == (2, True)
    _, new = await store.find_or_add(draft(project="q"))
    assert new


async def test_concurrent_adds_get_different_versions(store: SignatureStore) -> None:
    added = await asyncio.gather(*(store.add(draft()) for _ in range(10)))
    assert sorted(one.version for one in added) == list(range(1, 11))


async def test_pages_go_by_name_then_newest_version_and_never_overlap(store: SignatureStore) -> None:
    for name in ("b", "a", "b", "c", "b"):
        await store.add(draft(name=name))
    await store.add(draft(name="a", project="q"))
    seen, cursor = [], None
    for _ in range(3):
        page = await store.list("p", name=None, status=None, limit=2, cursor=cursor)
        seen += [(one.name, one.version) for one in page.data]
        cursor = page.next_cursor
    assert seen == [("a", 1), ("b", 3), ("b", 2), ("b", 1), ("c", 1)]
    assert cursor is None


async def test_a_list_is_filtered_by_name_and_status(store: SignatureStore) -> None:
    first = await store.add(draft(name="a"))
    await store.add(draft(name="a"))
    await store.add(draft(name="b"))
    await store.set_status(replace(first, status="active"), expected="draft")
    named = await store.list("p", name="a", status=None, limit=10, cursor=None)
    active = await store.list("p", name=None, status="active", limit=10, cursor=None)
    assert [one.version for one in named.data] == [2, 1]
    assert [(one.name, one.version) for one in active.data] == [("a", 1)]


@pytest.mark.parametrize("cursor", ["", "nonsense", encode_cursor(1), encode_cursor("a", "b")])
async def test_a_foreign_cursor_is_refused(store: SignatureStore, cursor: str) -> None:
    with pytest.raises(Invalid) as caught:
        await store.list("p", name=None, status=None, limit=10, cursor=cursor)
    assert caught.value.code == "bad_cursor"


async def test_a_status_moves_only_from_the_one_expected(store: SignatureStore) -> None:
    added = await store.add(draft())
    await store.set_status(replace(added, status="active"), expected="draft")
    with pytest.raises(Conflict) as caught:
        await store.set_status(replace(added, status="active"), expected="draft")
    assert caught.value.code == "signature_changed"
    found = await store.get("p", "qa", 1)
    assert found is not None
    assert found.status == "active"


async def test_the_status_of_an_unknown_version_is_missing(store: SignatureStore) -> None:
    with pytest.raises(Missing):
        await store.set_status(replace(draft(), version=3, status="active"), expected="draft")
