"""Keys and the audit log kept in memory, for tests and throw-away servers."""

import builtins
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from msgspec.structs import replace

from dspex.access.records import AuditEntry, AuditFilter, Key
from dspex.kit.errors import Invalid, Problem
from dspex.kit.paging import Page, decode_cursor, encode_cursor


class MemoryKeys:
    """An `access.ports.KeyStore`. Nothing awaits inside, so all is atomic."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}

    async def find(self, key_ids: Sequence[str]) -> Mapping[str, Key]:
        return {one: self._keys[one] for one in key_ids if one in self._keys}

    async def list(self, project: str | None, *, limit: int, cursor: str | None) -> Page[Key]:
        found = [one for one in self._keys.values() if project in (None, one.project)]
        found.sort(key=lambda one: (one.created_at, one.id), reverse=True)
        if cursor is not None:
            after = place_of(cursor)
            found = [one for one in found if (one.created_at, one.id) < after]
        page = tuple(found[:limit])
        last = page[-1] if page else None
        more = last is not None and len(found) > limit
        return Page(page, encode_cursor(last.created_at.isoformat(), last.id) if last and more else None)

    async def add(self, key: Key) -> bool:
        return self._keys.setdefault(key.id, key) is key

    async def add_first(self, key: Key) -> bool:
        return not self._keys and await self.add(key)

    async def update(self, key: Key, *, expected_digest: str) -> bool:
        stored = self._keys.get(key.id)
        if stored is None or stored.digest != expected_digest or stored.revoked_at is not None:
            return False
        self._keys[key.id] = replace(
            stored,
            digest=key.digest,
            rotated_at=key.rotated_at,
            previous_digest=key.previous_digest,
            previous_until=key.previous_until,
            revoked_at=key.revoked_at,
        )
        return True

    async def note_used(self, used: Mapping[str, datetime]) -> None:
        for key_id, at in used.items():
            stored = self._keys.get(key_id)
            if stored is not None and (stored.last_used_at is None or stored.last_used_at < at):
                self._keys[key_id] = replace(stored, last_used_at=at)


class MemoryAudit:
    """An `access.ports.AuditStore`."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], AuditEntry] = {}

    async def add(self, *entries: AuditEntry) -> None:
        for one in entries:
            self._entries[one.project, one.id] = replace(one, details=dict(one.details))

    async def conclude(self, entry: AuditEntry) -> None:
        stored = self._entries[entry.project, entry.id]
        self._entries[entry.project, entry.id] = replace(
            stored, outcome=entry.outcome, details=dict(entry.details)
        )

    async def list(
        self, project: str, where: AuditFilter, *, limit: int, cursor: str | None
    ) -> Page[AuditEntry]:
        found: builtins.list[AuditEntry] = [
            one
            for one in self._entries.values()
            if one.project == project
            and where.action in (None, one.action)
            and where.actor in (None, one.actor)
            and (where.since is None or one.at >= where.since)
            and (where.until is None or one.at < where.until)
        ]
        found.sort(key=lambda one: (one.at, one.id), reverse=True)
        if cursor is not None:
            after = place_of(cursor)
            found = [one for one in found if (one.at, one.id) < after]
        page = tuple(found[:limit])
        last = page[-1] if page else None
        more = last is not None and len(found) > limit
        return Page(page, encode_cursor(last.at.isoformat(), last.id) if last and more else None)

    async def prune(self, *, older_than: datetime) -> int:
        old = [place for place, one in self._entries.items() if one.at < older_than]
        for place in old:
            del self._entries[place]
        return len(old)


def place_of(cursor: str) -> tuple[datetime, str]:
    match decode_cursor(cursor, 2):
        case [str() as text, str() as last_id]:
            with suppress(ValueError):
                moment = datetime.fromisoformat(text)
                if moment.tzinfo is not None:
                    return moment, last_id
    raise Invalid(
        "The cursor belongs to another list; leave it out to start from the first page.",
        code="bad_cursor",
        problems=[Problem("/cursor", "bad_cursor", "not a cursor of this list")],
    )
