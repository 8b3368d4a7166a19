"""Who asked for what is done only now."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR, Key
from dspex.access.service import Keys
from dspex.kit.errors import Forbidden, Unauthenticated
from dspex.kit.signals import LocalSignals
from dspex.providers.memory.access import MemoryKeys
from tests.clock import FakeClock
from tests.making import NOON

KEY = Key("k", "ours", "n", "caller", None, "d", NOON, "cli")


async def keys_with(*stored: Key) -> Keys:
    store = MemoryKeys()
    for key in stored:
        await store.add(key)
    return Keys(store, LocalSignals(), FakeClock())


async def test_a_key_that_is_good_acts_with_what_it_may_now() -> None:
    keys = await keys_with(KEY)
    principal = await keys.principal("k", "ours", "programs:run")
    assert (principal.key_id, principal.project, principal.role) == ("k", "ours", "caller")
    assert await keys.principal(None, "ours", "programs:run") == replace(LOCAL_OPERATOR, project="ours")


@pytest.mark.parametrize(
    ("stored", "code"),
    [
        ([], "key_revoked"),
        ([replace(KEY, revoked_at=NOON)], "key_revoked"),
        ([replace(KEY, expires_at=NOON - timedelta(seconds=1))], "key_expired"),
    ],
)
async def test_a_key_that_ended_acts_no_more(stored: list[Key], code: str) -> None:
    keys = await keys_with(*stored)
    with pytest.raises(Unauthenticated) as refused:
        await keys.principal("k", "ours", "programs:run")
    assert refused.value.code == code


async def test_a_key_does_no_more_than_it_may() -> None:
    keys = await keys_with(KEY)
    with pytest.raises(Forbidden):
        await keys.principal("k", "ours", "programs:adhoc")
    with pytest.raises(Forbidden):
        await keys.principal("k", "theirs", "programs:run")
