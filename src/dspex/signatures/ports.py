"""What the signatures room needs from outside."""

from typing import Protocol

from dspex.kit.paging import Page
from dspex.signatures.lifecycle import RegisteredSignature
from dspex.signatures.records import SignatureStatus


class SignatureReader(Protocol):
    async def get(self, project: str, name: str, version: int) -> RegisteredSignature | None: ...

    async def latest(self, project: str, name: str) -> RegisteredSignature | None:
        """The highest version of the name, whatever its status."""
        ...

    async def list(
        self,
        project: str,
        *,
        name: str | None,
        status: SignatureStatus | None,
        limit: int,
        cursor: str | None,
    ) -> Page[RegisteredSignature]:
        """By name, newest version first within a name. Raises Invalid (bad_cursor) for a foreign cursor."""
        ...


class SignatureStore(SignatureReader, Protocol):
    async def add(self, registered: RegisteredSignature) -> RegisteredSignature:
        """Stores it with the next version of its name (`registered.version` is ignored), atomically."""
        ...

    async def find_or_add(self, registered: RegisteredSignature) -> tuple[RegisteredSignature, bool]:
        """The lowest version of the name with this digest, or the new one as `add` stores it; True when new.

        Atomic: many callers at once get one and the same."""
        ...

    async def set_status(self, registered: RegisteredSignature, *, expected: SignatureStatus) -> None:
        """Stores `registered.status`. Raises Missing (code signature_not_found), or Conflict
        (code signature_changed) when the stored status is not `expected`."""
        ...
