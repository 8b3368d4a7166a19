"""What processes saw together, and what they told of it."""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from dspex.kit.records import asdict
from dspex.observability.records import Alert, Lasting, Part
from dspex.storage.alert_rows import lasting_of, parts_of, thresholds_text
from dspex.storage.sessions import Sessions
from dspex.storage.tables import NOT_RESOLVED, alert_parts, alerts

_part, _row = alert_parts.c, alerts.c


class StoredAlertBoard:
    """`observability.ports.AlertBoard` over the tables."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def add(self, parts: Sequence[Part]) -> None:
        rows = [{**asdict(part), "thresholds": thresholds_text(part.thresholds)} for part in parts]
        insert = self._sessions.dialect.insert(alert_parts).values(rows)
        new = insert.excluded
        counts = {name: _part[name] + new[name] for name in ("ended", "failed")}
        slowest = {
            name: sa.case((new[name] > _part[name], new[name]), else_=_part[name])
            for name in ("slowest_s", "slowest_pool_s")
        }
        together = {**counts, **slowest, "thresholds": new.thresholds}
        key = list(alert_parts.primary_key)
        async with self._sessions.writing() as session:
            await session.execute(insert.on_conflict_do_update(index_elements=key, set_=together))

    async def seen(self, *, since: datetime, until: datetime) -> Sequence[Part]:
        newest = sa.func.max(_part.began, type_=_part.began.type)
        query = (
            sa.select(
                _part.project,
                _part.program,
                newest.label("began"),
                sa.cast(sa.func.sum(_part.ended), sa.BigInteger).label("ended"),
                sa.cast(sa.func.sum(_part.failed), sa.BigInteger).label("failed"),
                sa.func.max(_part.slowest_s).label("slowest_s"),
                sa.func.max(_part.slowest_pool_s).label("slowest_pool_s"),
                _part.thresholds,
            )
            .where(_part.began > since, _part.began <= until)
            .group_by(_part.project, _part.program, _part.thresholds)
            .order_by(newest)
        )
        async with self._sessions.reading() as session:
            return parts_of([dict(row) for row in (await session.execute(query)).mappings()])

    async def active(self) -> Sequence[Lasting]:
        async with self._sessions.reading() as session:
            rows = (await session.execute(sa.select(alerts).where(NOT_RESOLVED))).mappings().all()
        return [lasting_of(dict(row)) for row in rows]

    async def recent(self, project: str, *, limit: int) -> Sequence[Alert]:
        query = (
            sa.select(alerts)
            .where(_row.project == project, _row.resolved_at.is_not(None))
            .order_by(_row.resolved_at.desc())
            .limit(limit)
        )
        async with self._sessions.reading() as session:
            rows = (await session.execute(query)).mappings().all()
        return [lasting_of(dict(row)).alert for row in rows]

    async def open(self, alert: Alert) -> bool:
        row = {**asdict(alert), "told_at": alert.raised_at}
        insert = self._sessions.dialect.insert(alerts).values(row).on_conflict_do_nothing()
        async with self._sessions.writing() as session:
            return (await session.execute(insert)).rowcount == 1

    async def remind(self, alert: Alert, *, told_at: datetime, at: datetime) -> bool:
        update = (
            sa.update(alerts)
            .where(_row.id == alert.id, NOT_RESOLVED, _row.told_at <= told_at)
            .values(told_at=at)
        )
        async with self._sessions.writing() as session:
            return (await session.execute(update)).rowcount == 1

    async def close(self, alert: Alert) -> bool:
        update = sa.update(alerts).where(_row.id == alert.id, NOT_RESOLVED).values(asdict(alert))
        async with self._sessions.writing() as session:
            return (await session.execute(update)).rowcount == 1

    async def prune(
        self, *, parts_before: datetime, parts_after: datetime, resolved_before: datetime
    ) -> None:
        useless = sa.or_(_part.began < parts_before, _part.began > parts_after)
        async with self._sessions.writing() as session:
            await session.execute(sa.delete(alert_parts).where(useless))
            await session.execute(sa.delete(alerts).where(_row.resolved_at < resolved_before))
