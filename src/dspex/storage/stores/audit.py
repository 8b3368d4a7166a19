"""The audit log."""

from datetime import datetime

import sqlalchemy as sa

from dspex.access.records import AuditEntry, AuditFilter
from dspex.kit.paging import Page, encode_cursor
from dspex.kit.records import asdict
from dspex.storage.encoding import time_text
from dspex.storage.sessions import Sessions
from dspex.storage.stores.keys import moment_and_id
from dspex.storage.stores.keyset import past
from dspex.storage.stores.paging import page
from dspex.storage.tables import audit_log

_table = audit_log.c
_PLACE = (_table.at, _table.id)
PRUNE_BATCH = 500


class StoredAudit:
    """`access.ports.AuditStore` over the table."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def add(self, *entries: AuditEntry) -> None:
        async with self._sessions.writing() as session:
            await session.execute(sa.insert(audit_log), [asdict(entry) for entry in entries])

    async def conclude(self, entry: AuditEntry) -> None:
        query = (
            sa.update(audit_log)
            .where(_table.project == entry.project, _table.id == entry.id)
            .values(outcome=entry.outcome, details=entry.details)
        )
        async with self._sessions.writing() as session:
            await session.execute(query)

    async def list(
        self, project: str, where: AuditFilter, *, limit: int, cursor: str | None
    ) -> Page[AuditEntry]:
        query = sa.select(audit_log).where(_table.project == project)
        if where.action is not None:
            query = query.where(_table.action == where.action)
        if where.actor is not None:
            query = query.where(_table.actor == where.actor)
        if where.since is not None:
            query = query.where(_table.at >= where.since)
        if where.until is not None:
            query = query.where(_table.at < where.until)
        if cursor is not None:
            query = query.where(past(_PLACE, moment_and_id(cursor), descending=True))
        query = query.order_by(*(one.desc() for one in _PLACE)).limit(limit + 1)
        async with self._sessions.reading() as session:
            rows = (await session.execute(query)).mappings().all()
        found = [AuditEntry(**row) for row in rows]
        return page(found, limit, lambda last: encode_cursor(time_text(last.at), last.id))

    async def prune(self, *, older_than: datetime) -> int:
        place = sa.tuple_(_table.project, _table.id)
        batch = sa.select(_table.project, _table.id).where(_table.at < older_than).limit(PRUNE_BATCH)
        deleted = 0
        while True:
            async with self._sessions.reading() as session:
                found = [tuple(row) for row in await session.execute(batch)]
            if not found:
                return deleted
            async with self._sessions.writing() as session:
                deleted += (await session.execute(sa.delete(audit_log).where(place.in_(found)))).rowcount
