"""Feedback on executions."""

from collections.abc import Sequence

import sqlalchemy as sa

from dspex.executions.feedback.records import ExampleFilter, Feedback
from dspex.kit.records import asdict
from dspex.storage.sessions import Sessions
from dspex.storage.tables import executions, feedback

PRUNE_BATCH = 500
MOST_VERSION = 2**31 - 1
_row, _ran = feedback.c, executions.c


class StoredFeedback:
    """`executions.feedback.ports.FeedbackStore` over the table."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def add(self, given: Feedback, *, most: int) -> bool:
        there = sa.select(sa.func.count()).where(
            _row.project == given.project, _row.execution_id == given.execution_id
        )
        async with self._sessions.writing() as session:
            await self._sessions.dialect.serialize(session, "feedback", given.project, given.execution_id)
            if (await session.execute(there)).scalar_one() >= most:
                return False
            await session.execute(sa.insert(feedback).values(asdict(given)))
        return True

    async def of(self, project: str, execution_ids: Sequence[str]) -> Sequence[Feedback]:
        query = (
            sa.select(feedback)
            .where(_row.project == project, _row.execution_id.in_(execution_ids))
            .order_by(_row.id)
        )
        async with self._sessions.reading() as session:
            return [Feedback(**row) for row in (await session.execute(query)).mappings()]

    async def candidates(
        self, project: str, where: ExampleFilter, *, after: str, limit: int
    ) -> Sequence[str]:
        if where.version is not None and not 0 < where.version <= MOST_VERSION:
            return []
        query = sa.select(_ran.id).where(
            _ran.project == project,
            _ran.program == where.program,
            _ran.id > after,
            _ran.status.in_(["completed", "failed", "cancelled"]),
        )
        if where.version is not None:
            query = query.where(_ran.version == where.version)
        if where.since is not None:
            query = query.where(_ran.created_at >= where.since)
        if where.until is not None:
            query = query.where(_ran.created_at < where.until)
        if where.only != "all":
            judged = sa.exists().where(_row.project == _ran.project, _row.execution_id == _ran.id)
            query = query.where(
                judged.where(_row.correction.is_not(None)) if where.only == "corrections" else judged
            )
        async with self._sessions.reading() as session:
            return list((await session.execute(query.order_by(_ran.id).limit(limit))).scalars())

    async def prune(self) -> int:
        ran = sa.exists().where(_ran.project == _row.project, _ran.id == _row.execution_id)
        query = sa.select(_row.project, _row.execution_id, _row.id).where(~ran).limit(PRUNE_BATCH)
        place = sa.tuple_(_row.project, _row.execution_id, _row.id)
        deleted = 0
        while True:
            async with self._sessions.reading() as session:
                found = [tuple(row) for row in await session.execute(query)]
            if not found:
                return deleted
            async with self._sessions.writing() as session:
                deleted += (await session.execute(sa.delete(feedback).where(place.in_(found)))).rowcount
