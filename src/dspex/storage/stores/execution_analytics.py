"""Figures over executions, asked of the database: right for every node that writes to it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from dspex.executions.records import Activity, Bucket, Distribution, ExecutionFilter
from dspex.storage.sessions import ReadSession, Sessions
from dspex.storage.stores.execution_reader import PERCENTILES, conditions
from dspex.storage.tables import executions


class StoredAnalytics:
    """`executions.ports.ExecutionAnalytics` over the tables."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def distribution(
        self,
        project: str,
        metric: str,
        *,
        program: str | None,
        since: datetime,
        until: datetime,
        bucket: timedelta | None,
    ) -> tuple[Distribution, Sequence[Bucket]]:
        async with self._sessions.reading() as session:
            whole = await self._distribution(session, project, metric, program, since, until)
            buckets = []
            start = since
            while bucket is not None and start < until:
                end = min(start + bucket, until)
                within = await self._distribution(session, project, metric, program, start, end)
                buckets.append(Bucket(start, within))
                start = end
        return whole, buckets

    async def _distribution(
        self,
        session: ReadSession,
        project: str,
        metric: str,
        program: str | None,
        since: datetime,
        until: datetime,
    ) -> Distribution:
        column = executions.c[metric]
        where = sa.and_(*conditions(project, ExecutionFilter(program=program, since=since, until=until)))
        row = (
            await session.execute(
                sa.select(
                    sa.func.count(column).label("count"),
                    sa.func.sum(column).label("sum"),
                    sa.func.min(column).label("min"),
                    sa.func.max(column).label("max"),
                ).where(where)
            )
        ).one()
        if not row.count:
            return Distribution()
        p50, p95, p99 = await self._sessions.dialect.percentiles(session, column, where, PERCENTILES)
        total = round(float(row.sum), 12)
        return Distribution(
            row.count, total / row.count, total, float(row.min), float(row.max), p50, p95, p99
        )

    async def activity(self, project: str, *, since: datetime, until: datetime) -> Activity:
        table = executions.c
        where = sa.and_(*conditions(project, ExecutionFilter(since=since, until=until)))

        def counted(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
            return sa.func.count(sa.case((condition, 1)))

        async with self._sessions.reading() as session:
            row = (
                await session.execute(
                    sa.select(
                        sa.func.count().label("executions"),
                        counted(table.status == "completed").label("completed"),
                        counted(table.status == "failed").label("failed"),
                        counted(table.cache == "hit").label("hits"),
                        counted(table.cache == "miss").label("misses"),
                        sa.func.count(sa.distinct(table.session_id)).label("sessions"),
                        sa.func.coalesce(sa.func.sum(table.cost_usd), 0).label("cost_usd"),
                        sa.func.coalesce(sa.func.sum(table.saved_usd), 0).label("saved_usd"),
                    ).where(where)
                )
            ).one()
            (p95,) = await self._sessions.dialect.percentiles(session, table.duration_ms, where, (0.95,))
        return Activity(
            executions=row.executions,
            completed=row.completed,
            failed=row.failed,
            cache_hits=row.hits,
            cache_misses=row.misses,
            sessions=row.sessions,
            cost_usd=round(float(row.cost_usd), 12),
            saved_usd=round(float(row.saved_usd), 12),
            duration_p95_ms=p95,
        )
