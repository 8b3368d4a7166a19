"""From a presented key to a principal, in a few microseconds: rows are kept, and every request is compared."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import TypeVar

from msgspec import Struct

from dspex.access.lookups import Lookups
from dspex.access.ports import KeyStore
from dspex.access.records import Key, Principal
from dspex.access.rules import check_key, invalid_key, principal_of
from dspex.access.tokens import digest_of, key_id_in
from dspex.kit.clock import Clock
from dspex.kit.errors import Exhausted, Unauthenticated, Unavailable
from dspex.kit.signals import Signals

T = TypeVar("T")
CHANGED = "keys.changed"
# A row is read again when it is as old as FRESH_S; requests go on with it meanwhile, up to STALE_S.
FRESH_S = 1.0
STALE_S = 2.0
# How long a key is taken on trust that could not be read again.
AWAY_S = 300.0
# How long the database is waited for: when there is a row to go on with, and when there is none. The first is
# over before such a row is stale, so that nobody waits for a database that hangs.
LOOK_S = 0.9
FIRST_LOOK_S = 5.0
KEPT = 10_000
ABSENT_KEPT = 1_000


class _Known(Struct):
    """A row, when it was read (`seen`), when that was last tried (`looked`), and when it was last read because

    another secret was presented (`doubted`); monotonic seconds.
    """

    key: Key
    principal: Principal
    seen: float
    looked: float
    doubted: float = -math.inf
    noted: bool = False


class Authenticator:
    """A row is trusted for a second, then it is read again, beside the requests; a change on any node drops it

    at once. While the database is away, known keys go on for AWAY_S. Rows are kept by public id, so that only keys
    that exist take room, and nothing that is kept could be presented; ids that do not exist have a small
    room of their own.
    """

    def __init__(self, keys: KeyStore, signals: Signals, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._lookups = Lookups(keys)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._absent: OrderedDict[str, float] = OrderedDict()
        self._used: dict[str, datetime] = {}
        self._rereads: dict[str, asyncio.Task[_Known | None]] = {}
        # When the database last did not answer, if it has not since.
        self._failed = -math.inf
        # The number of the last change, of each key's last one, and of the last that concerned all.
        self._changes = 0
        self._changed: dict[str, int] = {}
        self._all_changed = 0
        signals.on(CHANGED, self._forget)

    async def authenticate(self, presented: bytes) -> Principal:
        """Raises Unauthenticated (key_invalid, key_expired, key_revoked), Unavailable while nobody can say."""
        key_id = key_id_in(presented)
        digest = digest_of(presented)
        if key_id is None:
            raise invalid_key()
        known = self._known.get(key_id)
        read = known is None or (
            self._clock.monotonic() - known.looked >= FRESH_S and not self._does_meanwhile(key_id, known)
        )
        if read:
            known = await self._look(key_id)
        now = self._clock.now()
        try:
            check_key(known.key if known else None, digest, now)
        except Unauthenticated as refused:
            if read or known is None or refused.code != "key_invalid":
                raise
            known = await self._doubt(key_id, known)
            check_key(known.key if known else None, digest, now)
        if known is None:
            raise invalid_key()
        if not known.noted:
            known.noted = True
            self._used[key_id] = now
        return known.principal

    async def note_used(self) -> None:
        """Writes down when keys were used since the last time. Raises Unavailable; nothing is lost then."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._keys.note_used(used)
        except Unavailable:
            self._used = used | self._used
            raise

    def _does_meanwhile(self, key_id: str, known: _Known) -> bool:
        """Whether a row that is to be read again will do while that is done."""
        now = self._clock.monotonic()
        if now - known.seen > AWAY_S or (now - known.looked >= STALE_S and now - self._failed >= STALE_S):
            return False
        if key_id not in self._rereads:
            self._reread(key_id)
        return True

    async def _doubt(self, key_id: str, known: _Known) -> _Known | None:
        """The row after a secret that is not its own: that one may be newer, from a node that was not heard.

        It is read for that once a second at most, as an id is that nobody knows.
        """
        now = self._clock.monotonic()
        if now - known.doubted >= FRESH_S:
            known.doubted = now
            self._reread(key_id)
        reread = self._rereads.get(key_id)
        return known if reread is None else await asyncio.shield(reread)

    def _reread(self, key_id: str) -> None:
        task = self._rereads[key_id] = asyncio.create_task(self._look(key_id))
        task.add_done_callback(partial(self._end_reread, key_id))

    def _end_reread(self, key_id: str, task: asyncio.Task[_Known | None]) -> None:
        if self._rereads.get(key_id) is task:
            del self._rereads[key_id]
        if not task.cancelled():
            # Whoever needs the row finds out on its own: it stays as old as it is.
            task.exception()

    async def _look(self, key_id: str) -> _Known | None:
        if self._clock.monotonic() - self._absent.get(key_id, -FRESH_S) < FRESH_S:
            return None
        while True:
            changes = self._changes
            try:
                async with asyncio.timeout(LOOK_S if key_id in self._known else FIRST_LOOK_S):
                    key = await self._lookups.find(key_id)
            except (Unavailable, Exhausted, TimeoutError) as error:
                return self._going_on(key_id, error)
            self._failed = -math.inf
            if max(self._changed.get(key_id, 0), self._all_changed) <= changes:
                return self._keep(key_id, key)
            # It changed while it was read: what was read may be from before.

    def _keep(self, key_id: str, key: Key | None) -> _Known | None:
        now = self._clock.monotonic()
        if key is None:
            self._known.pop(key_id, None)
            _put(self._absent, key_id, now, ABSENT_KEPT)
            return None
        before = self._known.get(key_id)
        doubted = before.doubted if before else -math.inf
        known = _Known(key, principal_of(key), now, now, doubted)
        _put(self._known, key_id, known, KEPT)
        return known

    def _going_on(self, key_id: str, error: Exception) -> _Known:
        known, now = self._known.get(key_id), self._clock.monotonic()
        if known is None and isinstance(error, Exhausted):
            raise error
        self._failed = now
        if known is None or now - known.seen > AWAY_S:
            raise Unavailable(
                "Keys can't be checked right now: the database does not answer.",
                code="keys_unavailable",
                retry_after=1,
            )
        known.looked = now
        return known

    def _forget(self, payload: Mapping[str, str]) -> None:
        self._changes += 1
        key_id = payload.get("id")
        if key_id is None or len(self._changed) >= KEPT:
            self._all_changed = self._changes
            self._changed.clear()
            self._known.clear()
            self._absent.clear()
        else:
            self._changed[key_id] = self._changes
            self._known.pop(key_id, None)
            self._absent.pop(key_id, None)


def _put(kept: OrderedDict[str, T], key: str, value: T, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
