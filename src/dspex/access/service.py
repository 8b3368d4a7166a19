"""Making, listing, rotating and revoking keys."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from msgspec import Struct
from msgspec.structs import replace

from dspex.access.authentication import CHANGED
from dspex.access.ports import KeyStore
from dspex.access.records import DEFAULT_PROJECT, LOCAL, LOCAL_OPERATOR, Key, Principal, Role
from dspex.access.rules import (
    check_acts_in,
    check_grant,
    check_may,
    check_project,
    check_scopes,
    principal_of,
)
from dspex.access.tokens import digest_of, new_key, new_key_id
from dspex.configuration.spending import Budget, RateLimit
from dspex.kit.clock import Clock
from dspex.kit.errors import Conflict, Internal, Invalid, Missing, Problem, Unauthenticated, Unavailable
from dspex.kit.paging import Page
from dspex.kit.signals import Signals

log = structlog.get_logger(__name__)
OVERLAP = timedelta(hours=24)
DRAWS = 5


class NewKey(Struct, frozen=True):
    """What a key is asked to be. `scopes` None: all of the role's; `expires_at` None: never."""

    name: str
    role: Role
    scopes: Sequence[str] | None = None
    expires_at: datetime | None = None
    rate_limit: RateLimit | None = None
    budget: Budget | None = None


class Keys:
    """Whoever makes or rotates a key sees it once: what is returned as text is stored nowhere."""

    def __init__(self, store: KeyStore, signals: Signals, clock: Clock) -> None:
        self._store = store
        self._signals = signals
        self._clock = clock

    async def create(self, wanted: NewKey, by: Principal, actor: str) -> tuple[Key, str]:
        """A key of `by`'s project, and its text.

        Raises Invalid (bad_scopes, bad_expiry), Forbidden (grant_too_wide).
        """
        check_project(by.project)
        check_scopes(wanted.role, wanted.scopes)
        check_grant(by, wanted.role, wanted.scopes)
        if wanted.expires_at is not None and wanted.expires_at <= self._clock.now():
            raise Invalid(
                "A key that has expired already is of no use; name a time to come.",
                code="bad_expiry",
                problems=[Problem("/expires_at", "bad_expiry", "lies in the past")],
            )
        for _ in range(DRAWS):
            key, text = self._draw(wanted, by.project, actor)
            if await self._store.add(key):
                await self._tell(key.id)
                return key, text
        raise Internal("No free id was found for a key; the random numbers of this machine are broken.")

    async def create_first(self) -> tuple[Key, str] | None:
        """An admin's key if there is no key at all; None when there is. Of many nodes one makes it."""
        key, text = self._draw(NewKey("first admin", "admin"), DEFAULT_PROJECT, LOCAL)
        if not await self._store.add_first(key):
            return None
        await self._tell(key.id)
        return key, text

    async def list(self, project: str | None, *, limit: int, cursor: str | None) -> Page[Key]:
        """Newest first; of all projects when none is named."""
        return await self._store.list(project, limit=limit, cursor=cursor)

    async def get(self, project: str | None, key_id: str) -> Key:
        """Raises Missing (code key_missing), also for a key of another project."""
        key = (await self._store.find([key_id])).get(key_id)
        if key is None or project not in (None, key.project):
            raise Missing(f"There is no key {key_id!r}.", code="key_missing")
        return key

    async def principal(self, key_id: str | None, project: str, scope: str) -> Principal:
        """Who asked for something in a project that is only done now; None is the operator.

        Raises Unauthenticated (key_revoked, key_expired), Forbidden (scope_missing).
        """
        if key_id is None:
            return replace(LOCAL_OPERATOR, project=project)
        key = (await self._store.find([key_id])).get(key_id)
        if key is None or key.revoked_at is not None:
            raise Unauthenticated(
                "The key that asked for this was revoked before it was done.", code="key_revoked"
            )
        if key.expires_at is not None and key.expires_at <= self._clock.now():
            raise Unauthenticated(
                "The key that asked for this expired before it was done.", code="key_expired"
            )
        principal = principal_of(key)
        check_may(principal, scope)
        check_acts_in(principal, project)
        return replace(principal, project=project)

    async def rotate(self, key: Key, by: Principal, *, overlap: timedelta = OVERLAP) -> tuple[Key, str]:
        """The same key with a new secret, and its text; the secret before is good for `overlap` more.

        One that was good from an earlier rotation ends at once. Raises Forbidden (grant_too_wide), Conflict
        (key_not_live, key_changed).
        """
        check_grant(by, key.role, key.scopes)
        now = self._clock.now()
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            raise Conflict(
                f"The key {key.id!r} is revoked or has expired; make a new one.", code="key_not_live"
            )
        text = new_key(key.id)
        after = replace(
            key,
            digest=digest_of(text.encode()),
            rotated_at=now,
            previous_digest=key.digest if overlap > timedelta(0) else None,
            previous_until=now + overlap if overlap > timedelta(0) else None,
        )
        return await self._change(key, after), text

    async def revoke(self, key: Key) -> Key:
        """Ends the key, whichever of its secrets is used. Doing it again changes nothing."""
        while key.revoked_at is None:
            try:
                return await self._change(key, replace(key, revoked_at=self._clock.now()))
            except Conflict:
                # Rotated or revoked meanwhile: whichever it was, it has to end.
                key = await self.get(None, key.id)
        return key

    async def end_overlap(self, key: Key) -> Key:
        """Ends the secret from before the last rotation. Raises Conflict (key_changed)."""
        return await self._change(key, replace(key, previous_digest=None, previous_until=None))

    async def _change(self, before: Key, after: Key) -> Key:
        if not await self._store.update(after, expected_digest=before.digest):
            raise Conflict(
                f"The key {before.id!r} was rotated or revoked meanwhile; look at it again.",
                code="key_changed",
            )
        await self._tell(before.id)
        return after

    async def _tell(self, key_id: str) -> None:
        try:
            await self._signals.send(CHANGED, {"id": key_id})
        except Unavailable as error:
            # It is stored: other nodes see it when they read the row again, a second later.
            log.warning("key_change_not_told", key=key_id, reason=error.message)

    def _draw(self, wanted: NewKey, project: str, actor: str) -> tuple[Key, str]:
        text = new_key(new_key_id())
        key = Key(
            id=text.split("_")[1],
            project=project,
            name=wanted.name,
            role=wanted.role,
            scopes=None if wanted.scopes is None else tuple(dict.fromkeys(wanted.scopes)),
            digest=digest_of(text.encode()),
            created_at=self._clock.now(),
            created_by=actor,
            expires_at=wanted.expires_at,
            rate_limit=wanted.rate_limit,
            budget=wanted.budget,
        )
        return key, text
