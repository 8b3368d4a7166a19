"""What every store of keys promises."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.access.ports import KeyStore
from dspex.access.records import Key
from dspex.configuration.spending import Budget, RateLimit
from dspex.kit.errors import Invalid
from dspex.kit.paging import encode_cursor
from tests.contracts.conftest import Stores
from tests.making import NOON, minutes


@pytest.fixture
def store(stores: Stores) -> KeyStore:
    return stores.keys


def key(key_id: str = "a", **changes: Any) -> Key:
    made = Key(key_id, "p", "for\x00tests \ud800", "caller", None, f"digest of {key_id}", NOON, "cli")
    return replace(made, **changes)


FULL = key(
    "full",
    scopes=("programs:run", "executions:read"),
    expires_at=NOON + timedelta(days=1),
    revoked_at=NOON + minutes(1),
    rotated_at=NOON + minutes(2),
    previous_digest="before",
    previous_until=NOON + minutes(3),
    last_used_at=NOON + minutes(4),
    rate_limit=RateLimit(5, None),
    budget=Budget(1.5, "day"),
)


@pytest.mark.parametrize("made", [key(), FULL], ids=["least", "full"])
async def test_what_was_stored_comes_back_exactly(store: KeyStore, made: Key) -> None:
    assert await store.add(made)
    assert await store.find([made.id, "nobody"]) == {made.id: made}


async def test_keys_of_all_projects_are_found_by_id_and_an_id_is_given_once(store: KeyStore) -> None:
    assert await store.add(key("a", project="p")) and await store.add(key("b", project="q"))
    assert set(await store.find(["a", "b"])) == {"a", "b"}
    assert not await store.add(key("a", project="q", name="other"))
    assert (await store.find(["a"]))["a"].project == "p"
    assert await store.find(["no\x00body", "\ud800"]) == {}


async def test_the_first_key_is_made_by_one_of_many(store: KeyStore) -> None:
    made = await asyncio.gather(*(store.add_first(key(str(one))) for one in range(5)))
    assert sorted(made) == [False] * 4 + [True]
    assert len((await store.list(None, limit=10, cursor=None)).data) == 1


async def test_pages_go_from_the_newest_and_never_overlap(store: KeyStore) -> None:
    for number, name in enumerate("abcde"):
        # Two of each moment: the id decides.
        await store.add(key(name, created_at=NOON + minutes(number // 2)))
    await store.add(key("z", project="q"))
    seen, cursor = [], None
    for _ in range(3):
        page = await store.list("p", limit=2, cursor=cursor)
        seen += [one.id for one in page.data]
        cursor = page.next_cursor
    assert seen == ["e", "d", "c", "b", "a"] and cursor is None
    assert len((await store.list(None, limit=10, cursor=None)).data) == 6


@pytest.mark.parametrize("cursor", ["", "x", encode_cursor(1, "a"), encode_cursor("today", "a")])
async def test_a_foreign_cursor_is_refused(store: KeyStore, cursor: str) -> None:
    with pytest.raises(Invalid) as refused:
        await store.list("p", limit=2, cursor=cursor)
    assert refused.value.code == "bad_cursor"


async def test_a_change_needs_the_digest_that_is_stored_and_a_living_key(store: KeyStore) -> None:
    await store.add(key())
    rotated = key(digest="new", previous_digest="digest of a", rotated_at=NOON, previous_until=NOON)
    assert not await store.update(rotated, expected_digest="other")
    assert await store.update(replace(rotated, name="never changes"), expected_digest="digest of a")
    assert (await store.find(["a"]))["a"] == rotated
    assert await store.update(replace(rotated, revoked_at=NOON), expected_digest="new")
    assert not await store.update(replace(rotated, digest="newer"), expected_digest="new")
    assert not await store.update(key("nobody"), expected_digest="digest of nobody")


async def test_of_rotations_at_once_one_succeeds(store: KeyStore) -> None:
    await store.add(key())
    done = await asyncio.gather(
        *(store.update(key(digest=str(one)), expected_digest="digest of a") for one in range(5))
    )
    assert sorted(done) == [False] * 4 + [True]


async def test_the_time_of_use_moves_forward_only(store: KeyStore) -> None:
    await store.add(key())
    for at in (NOON, NOON + minutes(2), NOON + minutes(1)):
        await store.note_used({"a": at, "nobody": at})
    assert (await store.find(["a"]))["a"].last_used_at == NOON + minutes(2)
