"""Registered signatures."""

from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace

from dspex.kit.errors import Conflict, Missing
from dspex.kit.paging import Page, decode_cursor, encode_cursor
from dspex.signatures.document import signature_from_document, signature_to_document
from dspex.signatures.lifecycle import RegisteredSignature
from dspex.signatures.records import SignatureStatus
from dspex.storage.sessions import ReadSession, Sessions, WriteSession
from dspex.storage.stores.paging import foreign_cursor, page
from dspex.storage.tables import signatures

MOST_VERSION = 2**31 - 1
_table = signatures.c


class StoredSignatures:
    """`signatures.ports.SignatureStore` over the table."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def get(self, project: str, name: str, version: int) -> RegisteredSignature | None:
        if not 0 < version <= MOST_VERSION:
            return None
        async with self._sessions.reading() as session:
            return await _one(session, _of(project, name).where(_table.version == version))

    async def latest(self, project: str, name: str) -> RegisteredSignature | None:
        async with self._sessions.reading() as session:
            return await _one(session, _of(project, name).order_by(_table.version.desc()).limit(1))

    async def list(
        self,
        project: str,
        *,
        name: str | None,
        status: SignatureStatus | None,
        limit: int,
        cursor: str | None,
    ) -> Page[RegisteredSignature]:
        query = sa.select(signatures).where(_table.project == project)
        if name is not None:
            query = query.where(_table.name == name)
        if status is not None:
            query = query.where(_table.status == status)
        if cursor is not None:
            last_name, last_version = _position(cursor)
            later = sa.and_(_table.name == last_name, _table.version < last_version)
            query = query.where(sa.or_(_table.name > last_name, later))
        query = query.order_by(_table.name, _table.version.desc()).limit(limit + 1)
        async with self._sessions.reading() as session:
            rows = (await session.execute(query)).mappings().all()
        found = [_signature_of(row) for row in rows]
        return page(found, limit, lambda last: encode_cursor(last.name, last.version))

    async def add(self, registered: RegisteredSignature) -> RegisteredSignature:
        async with self._sessions.writing() as session:
            await self._serialize(session, registered)
            return await _append(session, registered)

    async def find_or_add(self, registered: RegisteredSignature) -> tuple[RegisteredSignature, bool]:
        same = _of(registered.project, registered.name).where(_table.digest == registered.digest)
        async with self._sessions.writing() as session:
            await self._serialize(session, registered)
            found = await _one(session, same.order_by(_table.version).limit(1))
            if found is not None:
                return found, False
            return await _append(session, registered), True

    async def set_status(self, registered: RegisteredSignature, *, expected: SignatureStatus) -> None:
        if not 0 < registered.version <= MOST_VERSION:
            raise _missing(registered)
        this = sa.and_(
            _table.project == registered.project,
            _table.name == registered.name,
            _table.version == registered.version,
        )
        async with self._sessions.writing() as session:
            done = await session.execute(
                sa.update(signatures).where(this, _table.status == expected).values(status=registered.status)
            )
            if done.rowcount == 1:
                return
            stored = (await session.execute(sa.select(_table.status).where(this))).scalar_one_or_none()
        if stored is None:
            raise _missing(registered)
        raise Conflict(
            f"Version {registered.version} of {registered.name!r} became {stored} meanwhile; read it again.",
            code="signature_changed",
        )

    async def _serialize(self, session: WriteSession, registered: RegisteredSignature) -> None:
        await self._sessions.dialect.serialize(session, "signatures", registered.project, registered.name)


def _of(project: str, name: str) -> "sa.Select[Any]":
    return sa.select(signatures).where(_table.project == project, _table.name == name)


async def _one(session: ReadSession, query: "sa.Select[Any]") -> RegisteredSignature | None:
    row = (await session.execute(query)).mappings().one_or_none()
    return None if row is None else _signature_of(row)


async def _append(session: WriteSession, registered: RegisteredSignature) -> RegisteredSignature:
    newest = sa.select(sa.func.max(_table.version)).where(
        _table.project == registered.project, _table.name == registered.name
    )
    version = ((await session.execute(newest)).scalar_one() or 0) + 1
    await session.execute(
        sa.insert(signatures).values(
            project=registered.project,
            name=registered.name,
            version=version,
            digest=registered.digest,
            status=registered.status,
            document=signature_to_document(registered.signature),
            created_at=registered.created_at,
        )
    )
    return replace(registered, version=version)


def _signature_of(row: sa.RowMapping) -> RegisteredSignature:
    return RegisteredSignature(
        project=row["project"],
        name=row["name"],
        version=row["version"],
        signature=signature_from_document(row["document"]),
        digest=row["digest"],
        status=row["status"],
        created_at=row["created_at"],
    )


def _position(cursor: str) -> tuple[str, int]:
    match decode_cursor(cursor, 2):
        case [str() as name, int() as version] if 0 < version <= MOST_VERSION:
            return name, version
    raise foreign_cursor()


def _missing(registered: RegisteredSignature) -> Missing:
    return Missing(f"There is no such version of {registered.name!r}.", code="signature_not_found")
