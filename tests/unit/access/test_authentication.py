"""From a key to a principal: what is kept, for how long, and what a flood of made-up keys costs."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest

from dspex.access.authentication import ABSENT_KEPT, AWAY_S, KEPT, Authenticator
from dspex.access.lookups import BATCH, Lookups
from dspex.access.records import LOCAL_OPERATOR, Key
from dspex.access.service import Keys, NewKey
from dspex.access.tokens import new_key, new_key_id
from dspex.kit.errors import Conflict, Exhausted, Invalid, Missing, Unauthenticated, Unavailable
from dspex.kit.signals import LocalSignals
from dspex.providers.memory.access import MemoryKeys
from tests.clock import FakeClock
from tests.unit.gateway.scripted import until


class Counted(MemoryKeys):
    """Counts its queries; may be away, or so slow that nobody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.away = False
        self.hold: asyncio.Event | None = None

    async def find(self, key_ids: Sequence[str]) -> Mapping[str, Key]:
        self.asked.append(len(key_ids))
        found = await super().find(key_ids)
        if self.hold is not None:
            await self.hold.wait()
        if self.away:
            raise Unavailable("It is away: postgresql://dspex:hush@db", code="database_unavailable")
        return found


class House:
    """Two nodes over one database; with `deaf` the second hears no signals."""

    def __init__(self, *, deaf: bool = False) -> None:
        self.clock, self.store, signals = FakeClock(), Counted(), LocalSignals()
        self.keys = Keys(self.store, signals, self.clock)
        self.here = Authenticator(self.store, signals, self.clock)
        self.there = Authenticator(self.store, LocalSignals() if deaf else signals, self.clock)

    async def key(self, **changes: object) -> tuple[Key, bytes]:
        wanted = NewKey("n", "caller", **changes)  # type: ignore[arg-type]
        made, text = await self.keys.create(wanted, LOCAL_OPERATOR, "cli")
        return made, text.encode()


async def code_of(node: Authenticator, presented: bytes) -> str:
    with pytest.raises((Unauthenticated, Unavailable, Exhausted)) as refused:
        await node.authenticate(presented)
    return refused.value.code


async def test_a_key_becomes_its_principal_and_is_read_once_a_second() -> None:
    house = House()
    made, text = await house.key()
    for _ in range(100):
        principal = await house.here.authenticate(text)
    assert (principal.key_id, principal.project, principal.role) == (made.id, "default", "caller")
    assert house.store.asked == [1]
    house.clock.advance(1.0)
    for _ in range(100):
        await house.here.authenticate(text)
    await until(lambda: not house.here._rereads)
    assert house.store.asked == [1, 1]


async def test_a_known_key_waits_for_no_query_until_its_row_is_stale() -> None:
    house = House()
    _, text = await house.key()
    await house.here.authenticate(text)
    house.store.hold = asyncio.Event()
    house.clock.advance(1.9)
    async with asyncio.timeout(0.02):
        await house.here.authenticate(text)
    house.clock.advance(0.1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await house.here.authenticate(text)
    house.store.hold.set()


async def test_a_flood_keeps_no_known_key_out_and_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    _, text = await house.key()
    await house.here.authenticate(text)
    monkeypatch.setattr("dspex.access.lookups.WAITING", 0)
    house.clock.advance(10)
    await house.here.authenticate(text)
    assert await code_of(house.here, new_key(new_key_id()).encode()) == "too_many_unknown_keys"


async def test_guessing_costs_one_query_a_second_and_all_with_a_newer_secret_wait_for_it() -> None:
    house = House(deaf=True)
    made, first = await house.key()
    await house.there.authenticate(first)
    _, second = await house.keys.rotate(made, LOCAL_OPERATOR)
    guess = new_key(made.id).encode()
    many = [house.there.authenticate(second.encode()) for _ in range(10)]
    codes = asyncio.gather(*(code_of(house.there, guess) for _ in range(10)))
    assert {one.key_id for one in await asyncio.gather(*many)} == {made.id}
    assert set(await codes) == {"key_invalid"}
    house.store.asked.clear()
    for _ in range(10):
        assert await code_of(house.there, guess) == "key_invalid"
    assert house.store.asked == []
    house.clock.advance(1.0)
    for _ in range(10):
        assert await code_of(house.there, guess) == "key_invalid"
    assert len(house.store.asked) <= 2


async def test_guessing_at_a_known_key_costs_few_queries() -> None:
    house = House()
    made, text = await house.key()
    await house.here.authenticate(text)
    guesses = (code_of(house.here, new_key(made.id).encode()) for _ in range(200))
    assert set(await asyncio.gather(*guesses)) == {"key_invalid"}
    assert len(house.store.asked) <= 3
    assert (await house.here.authenticate(text)).key_id == made.id


async def test_a_new_secret_is_good_on_a_node_that_heard_nothing_of_the_rotation() -> None:
    house = House(deaf=True)
    made, first = await house.key()
    await house.there.authenticate(first)
    _, second = await house.keys.rotate(made, LOCAL_OPERATOR)
    assert (await house.there.authenticate(second.encode())).key_id == made.id


async def test_revoking_is_seen_at_once_on_every_node_that_hears() -> None:
    house = House()
    made, text = await house.key()
    await house.here.authenticate(text)
    await house.there.authenticate(text)
    await house.keys.revoke(made)
    assert await code_of(house.here, text) == "key_revoked"
    assert await code_of(house.there, text) == "key_revoked"


async def test_a_node_that_hears_nothing_sees_it_within_two_seconds() -> None:
    house = House(deaf=True)
    made, text = await house.key()
    await house.there.authenticate(text)
    await house.keys.revoke(made)
    house.clock.advance(0.9)
    await house.there.authenticate(text)
    house.clock.advance(1.1)
    assert await code_of(house.there, text) == "key_revoked"


async def test_what_was_read_before_a_revocation_is_not_believed_after_it() -> None:
    house = House()
    made, text = await house.key()
    house.store.hold = asyncio.Event()
    reading = asyncio.create_task(house.here.authenticate(text))
    await asyncio.sleep(0)
    while not house.store.asked:
        await asyncio.sleep(0)
    hold, house.store.hold = house.store.hold, None
    await house.keys.revoke(made)
    hold.set()
    with pytest.raises(Unauthenticated):
        await reading


async def test_expiry_is_looked_at_on_every_request() -> None:
    house = House()
    _, text = await house.key(expires_at=house.clock.now() + timedelta(seconds=0.5))
    await house.here.authenticate(text)
    house.clock.advance(0.5)
    assert await code_of(house.here, text) == "key_expired"
    assert house.store.asked == [1]


async def test_a_new_key_is_good_where_its_id_was_just_tried() -> None:
    house = House()
    made, text = await house.key()
    del house.store._keys[made.id]
    assert await code_of(house.here, text) == "key_invalid"
    await house.store.add(made)
    assert await code_of(house.here, text) == "key_invalid"
    house.clock.advance(1.0)
    assert (await house.here.authenticate(text)).key_id == made.id


async def test_known_keys_go_on_while_the_database_is_away_and_unknown_ones_wait() -> None:
    house = House()
    _, text = await house.key()
    _, other = await house.key()
    await house.here.authenticate(text)
    house.store.away = True
    house.clock.advance(1.0)
    for _ in range(10):
        await house.here.authenticate(text)
    await until(lambda: not house.here._rereads)
    assert len(house.store.asked) == 2
    with pytest.raises(Unavailable) as refused:
        await house.here.authenticate(other)
    assert refused.value.code == "keys_unavailable" and "hush" not in refused.value.message
    house.clock.advance(AWAY_S)
    assert await code_of(house.here, text) == "keys_unavailable"
    house.store.away = False
    await house.here.authenticate(text)


async def test_a_database_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.access.authentication.LOOK_S", 0.01)
    house = House()
    _, text = await house.key()
    await house.here.authenticate(text)
    _, other = await house.key()
    await house.here.authenticate(other)
    house.store.hold = asyncio.Event()
    house.clock.advance(10.0)
    # The first finds out for all.
    await house.here.authenticate(text)
    monkeypatch.setattr("dspex.access.authentication.LOOK_S", 60)
    for _ in range(10):
        house.clock.advance(0.1)
        async with asyncio.timeout(0.02):
            await house.here.authenticate(text)
            await house.here.authenticate(other)
    house.store.hold.set()


async def test_a_flood_of_made_up_keys_becomes_few_queries_and_keeps_nobody_out() -> None:
    house = House()
    _, text = await house.key()
    await house.here.authenticate(text)
    house.store.asked.clear()
    flood = [asyncio.create_task(code_of(house.here, new_key(new_key_id()).encode())) for _ in range(1500)]
    _, fresh = await house.key()
    for _ in range(20):
        await house.here.authenticate(text)
    await house.here.authenticate(fresh)
    assert set(await asyncio.gather(*flood)) == {"key_invalid"}
    assert len(house.store.asked) <= 1500 / BATCH + 3
    assert max(house.store.asked) <= BATCH
    assert len(house.here._absent) <= ABSENT_KEPT and len(house.here._known) == 2 <= KEPT


async def test_too_many_who_wait_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.access.lookups.WAITING", 3)
    store = Counted()
    lookups = Lookups(store)
    answers = await asyncio.gather(*(lookups.find(str(one)) for one in range(5)), return_exceptions=True)
    assert [type(one) for one in answers] == [type(None)] * 3 + [Exhausted] * 2


async def test_what_is_no_key_is_never_looked_up() -> None:
    house = House()
    for presented in (b"", b"hush", b"dx_", b"sk-" + b"a" * 60, b"\xff\x00", b"dx_" + b"a" * 100_000):
        assert await code_of(house.here, presented) == "key_invalid"
    assert house.store.asked == []


async def test_use_is_written_down_seldom_and_not_lost_while_the_database_is_away() -> None:
    house = House()
    made, text = await house.key()
    await house.here.authenticate(text)
    used_at = house.clock.now()
    assert (await house.keys.get(None, made.id)).last_used_at is None
    await code_of(house.here, new_key(made.id).encode())

    async def away(_: object) -> None:
        raise Unavailable("away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(house.store, "note_used", away)
        with pytest.raises(Unavailable):
            await house.here.note_used()
    await house.here.note_used()
    assert (await house.keys.get(None, made.id)).last_used_at == used_at


async def test_a_rotation_leaves_the_secret_before_for_the_overlap() -> None:
    house = House()
    made, first = await house.key()
    after, second = await house.keys.rotate(made, LOCAL_OPERATOR, overlap=timedelta(hours=24))
    assert after.id == made.id and (await house.here.authenticate(second.encode())).key_id == made.id
    house.clock.advance(24 * 3600 - 1)
    await house.here.authenticate(first)
    house.clock.advance(1)
    assert await code_of(house.here, first) == "key_expired"
    await house.here.authenticate(second.encode())


async def test_a_rotation_without_overlap_ends_both_secrets_before_at_once() -> None:
    house = House()
    made, first = await house.key()
    after, second = await house.keys.rotate(made, LOCAL_OPERATOR)
    _, third = await house.keys.rotate(after, LOCAL_OPERATOR, overlap=timedelta(0))
    await house.here.authenticate(third.encode())
    for old in (first, second.encode()):
        assert await code_of(house.here, old) == "key_invalid"


async def test_the_overlap_can_be_ended_early() -> None:
    house = House()
    made, first = await house.key()
    after, second = await house.keys.rotate(made, LOCAL_OPERATOR)
    await house.here.authenticate(first)
    await house.keys.end_overlap(after)
    assert await code_of(house.here, first) == "key_invalid"
    await house.here.authenticate(second.encode())


async def test_of_two_rotations_at_once_one_is_told_and_a_revocation_always_wins() -> None:
    house = House()
    made, _ = await house.key()
    await house.keys.rotate(made, LOCAL_OPERATOR)
    with pytest.raises(Conflict) as refused:
        await house.keys.rotate(made, LOCAL_OPERATOR)
    assert refused.value.code == "key_changed"
    revoked = await house.keys.revoke(made)
    assert revoked.revoked_at is not None
    assert await house.keys.revoke(revoked) == revoked
    with pytest.raises(Conflict) as dead:
        await house.keys.rotate(revoked, LOCAL_OPERATOR)
    assert dead.value.code == "key_not_live"


async def test_a_revocation_counts_although_nobody_can_be_told() -> None:
    class Mute(LocalSignals):
        async def send(self, topic: str, payload: Mapping[str, str]) -> None:
            raise Unavailable("nobody can be told")

    house = House()
    made, text = await house.key()
    await Keys(house.store, Mute(), house.clock).revoke(made)
    house.clock.advance(2.0)
    assert await code_of(house.here, text) == "key_revoked"


async def test_keys_of_other_projects_are_missing_and_the_past_is_no_expiry() -> None:
    house = House()
    made, _ = await house.key()
    assert (await house.keys.get("default", made.id)).id == made.id
    for project, key_id in (("other", made.id), ("default", "nobody")):
        with pytest.raises(Missing):
            await house.keys.get(project, key_id)
    with pytest.raises(Invalid) as refused:
        await house.key(expires_at=house.clock.now())
    assert refused.value.code == "bad_expiry"


async def test_the_first_key_is_made_once() -> None:
    house = House()
    made = [one for one in await asyncio.gather(*(house.keys.create_first() for _ in range(5))) if one]
    assert len(made) == 1
    assert (await house.here.authenticate(made[0][1].encode())).role == "admin"
