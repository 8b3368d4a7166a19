"""Registering signatures and moving them through their life."""

from dspex.kit.clock import Clock
from dspex.kit.errors import Invalid, Missing, Problem
from dspex.kit.paging import DEFAULT_LIMIT, MAX_LIMIT, Page
from dspex.signatures.lifecycle import RegisteredSignature, check_name, digest, moved_to
from dspex.signatures.ports import SignatureStore
from dspex.signatures.records import Signature, SignatureStatus


class SignatureService:
    def __init__(self, store: SignatureStore, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def create(self, project: str, name: str, signature: Signature) -> RegisteredSignature:
        """A new draft with the next version of the name. Raises Invalid for a bad name."""
        return await self._store.add(self._draft(project, name, signature))

    async def find_or_create(self, project: str, signature: Signature) -> tuple[RegisteredSignature, bool]:
        """The registered signature that equals this one, or a new draft of it; True when it is new.

        One without a name of its own is registered under a name made of its digest.
        """
        name = signature.name or f"signature-{digest(signature)[:16]}"
        return await self._store.find_or_add(self._draft(project, name, signature))

    async def get(self, project: str, name: str, version: int | None = None) -> RegisteredSignature:
        """That version, or the newest one. Raises Missing (code signature_not_found)."""
        if version is None:
            found = await self._store.latest(project, name)
        else:
            found = await self._store.get(project, name, version)
        if found is None:
            which = f"signature {name!r}" if version is None else f"version {version} of signature {name!r}"
            raise Missing(f"There is no {which} in this project.", code="signature_not_found")
        return found

    async def list(
        self,
        project: str,
        *,
        name: str | None = None,
        status: SignatureStatus | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[RegisteredSignature]:
        """By name, newest version first within a name."""
        if not 1 <= limit <= MAX_LIMIT:
            message = f"limit must lie between 1 and {MAX_LIMIT}"
            raise Invalid(
                f"{message[0].upper()}{message[1:]}.",
                code="bad_limit",
                problems=[Problem("/limit", "out_of_range", message)],
            )
        return await self._store.list(project, name=name, status=status, limit=limit, cursor=cursor)

    async def activate(self, project: str, name: str, version: int) -> RegisteredSignature:
        """From draft. Raises Missing, or Conflict naming the state it is in."""
        return await self._move(project, name, version, "active")

    async def deprecate(self, project: str, name: str, version: int) -> RegisteredSignature:
        """From active. Raises Missing, or Conflict naming the state it is in."""
        return await self._move(project, name, version, "deprecated")

    async def _move(
        self, project: str, name: str, version: int, status: SignatureStatus
    ) -> RegisteredSignature:
        before = await self.get(project, name, version)
        after = moved_to(before, status)
        await self._store.set_status(after, expected=before.status)
        return after

    def _draft(self, project: str, name: str, signature: Signature) -> RegisteredSignature:
        return RegisteredSignature(
            project=project,
            name=check_name(name),
            version=0,
            signature=signature,
            digest=digest(signature),
            status="draft",
            created_at=self._clock.now(),
        )
