"""What the access room needs from outside."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from dspex.access.records import AuditEntry, AuditFilter, Key
from dspex.kit.paging import Page


class KeyReader(Protocol):
    async def find(self, key_ids: Sequence[str]) -> Mapping[str, Key]:
        """Those that exist, by id, of whatever project. Raises Unavailable."""
        ...


class KeyStore(KeyReader, Protocol):
    async def list(self, project: str | None, *, limit: int, cursor: str | None) -> Page[Key]:
        """Newest first; of all projects when none is named."""
        ...

    async def add(self, key: Key) -> bool:
        """False when its id is taken; nothing is stored then."""
        ...

    async def add_first(self, key: Key) -> bool:
        """Stores it if there is no key at all; of many callers on many nodes one gets True."""
        ...

    async def update(self, key: Key, *, expected_digest: str) -> bool:
        """Replaces digests, rotated_at, previous_until and revoked_at.

        False, and nothing is changed, when the stored key has another digest or is revoked.
        """
        ...

    async def note_used(self, used: Mapping[str, datetime]) -> None:
        """Moves last_used_at of keys forward, never back."""
        ...


class AuditStore(Protocol):
    async def add(self, *entries: AuditEntry) -> None:
        """All or none, committed on return."""
        ...

    async def conclude(self, entry: AuditEntry) -> None:
        """Replaces outcome and details of an entry that is there."""
        ...

    async def list(
        self, project: str, where: AuditFilter, *, limit: int, cursor: str | None
    ) -> Page[AuditEntry]:
        """Newest first."""
        ...

    async def prune(self, *, older_than: datetime) -> int:
        """Deletes entries of that age, of all projects, in batches; returns how many."""
        ...
