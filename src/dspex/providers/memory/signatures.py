"""Signatures kept in memory, for tests and throw-away servers."""

from msgspec.structs import replace

from dspex.kit.errors import Conflict, Invalid, Missing, Problem
from dspex.kit.paging import Page, decode_cursor, encode_cursor
from dspex.signatures.lifecycle import RegisteredSignature
from dspex.signatures.records import SignatureStatus


class MemorySignatures:
    """A `SignatureStore`. Nothing awaits inside a method, so each is atomic on one event loop."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str], list[RegisteredSignature]] = {}

    async def get(self, project: str, name: str, version: int) -> RegisteredSignature | None:
        versions = self._by_name.get((project, name), [])
        return versions[version - 1] if 1 <= version <= len(versions) else None

    async def latest(self, project: str, name: str) -> RegisteredSignature | None:
        versions = self._by_name.get((project, name))
        return versions[-1] if versions else None

    async def list(
        self,
        project: str,
        *,
        name: str | None,
        status: SignatureStatus | None,
        limit: int,
        cursor: str | None,
    ) -> Page[RegisteredSignature]:
        found = [
            one
            for (owner, _), versions in self._by_name.items()
            if owner == project
            for one in versions
            if name in (None, one.name) and status in (None, one.status)
        ]
        found.sort(key=_position)
        if cursor is not None:
            after = _after(cursor)
            found = [one for one in found if _position(one) > after]
        page = tuple(found[:limit])
        more = len(found) > limit
        return Page(page, encode_cursor(page[-1].name, page[-1].version) if more else None)

    async def add(self, registered: RegisteredSignature) -> RegisteredSignature:
        versions = self._by_name.setdefault((registered.project, registered.name), [])
        versions.append(replace(registered, version=len(versions) + 1))
        return versions[-1]

    async def find_or_add(self, registered: RegisteredSignature) -> tuple[RegisteredSignature, bool]:
        for one in self._by_name.get((registered.project, registered.name), []):
            if one.digest == registered.digest:
                return one, False
        return await self.add(registered), True

    async def set_status(self, registered: RegisteredSignature, *, expected: SignatureStatus) -> None:
        versions = self._by_name.get((registered.project, registered.name), [])
        if not 1 <= registered.version <= len(versions):
            raise Missing(f"There is no such version of {registered.name!r}.", code="signature_not_found")
        stored = versions[registered.version - 1]
        if stored.status != expected:
            raise Conflict(
                f"Version {stored.version} of signature {stored.name!r} became {stored.status} meanwhile; "
                "read it again.",
                code="signature_changed",
            )
        versions[registered.version - 1] = replace(stored, status=registered.status)


def _position(one: RegisteredSignature) -> tuple[str, int]:
    return one.name, -one.version


def _after(cursor: str) -> tuple[str, int]:
    match decode_cursor(cursor, 2):
        case [str() as name, int() as version]:
            return name, -version
    raise Invalid(
        "The cursor belongs to another list; leave it out to start from the first page.",
        code="bad_cursor",
        problems=[Problem("/cursor", "bad_cursor", "not a cursor of this list")],
    )
