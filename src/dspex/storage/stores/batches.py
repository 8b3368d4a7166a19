"""The items of batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dspex.executions.batches.records import BatchItem, BatchResult
from dspex.executions.records import ExecutionStatus
from dspex.jobs.records import Job
from dspex.storage.sessions import Sessions
from dspex.storage.stores.execution_rows import execution_of
from dspex.storage.stores.jobs import note_progress
from dspex.storage.tables import batch_items, executions, jobs

_item = batch_items.c
_BY_BATCH = [column for column in batch_items.columns if column.name not in ("project", "batch_id")]
PRUNE_BATCH = 500


class StoredBatches:
    """`executions.batches.ports.BatchStore` over the table."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def add(self, project: str, batch_id: str, items: Sequence[BatchItem]) -> None:
        rows = [
            {
                "project": project,
                "batch_id": batch_id,
                "position": item.position,
                "execution_id": item.execution_id,
                "inputs": item.inputs,
            }
            for item in items
        ]
        async with self._sessions.writing() as session:
            await session.execute(sa.insert(batch_items), rows)

    async def drop(self, project: str, batch_id: str) -> None:
        async with self._sessions.writing() as session:
            await session.execute(sa.delete(batch_items).where(*_of(project, batch_id)))

    async def open(
        self, project: str, batch_id: str, *, after: int, limit: int
    ) -> Sequence[tuple[BatchItem, ExecutionStatus | None]]:
        query = (
            sa.select(*_BY_BATCH, executions.c.status)
            .outerjoin_from(batch_items, executions, _ran())
            .where(*_of(project, batch_id), _item.position > after, _item.state.is_(None))
            .order_by(_item.position)
            .limit(limit)
        )
        async with self._sessions.reading() as session:
            rows = (await session.execute(query)).mappings().all()
        return [(_item_of(row), row["status"]) for row in rows]

    async def settle(self, job: Job, ended: Sequence[BatchItem], progress: Mapping[str, Any]) -> bool:
        update = (
            sa.update(batch_items)
            .where(*_of(job.project, job.id), _item.position == sa.bindparam("at"))
            .values(state=sa.bindparam("became"), error=sa.bindparam("told", type_=_item.error.type))
        )
        rows = [{"at": one.position, "became": one.state, "told": one.error} for one in ended]
        async with self._sessions.writing() as session:
            if not await note_progress(session, job, progress):
                return False
            if rows:
                await session.execute(update, rows)
        return True

    async def counts(self, project: str, batch_id: str) -> Mapping[str | None, int]:
        query = sa.select(_item.state, sa.func.count()).where(*_of(project, batch_id)).group_by(_item.state)
        async with self._sessions.reading() as session:
            return {row[0]: row[1] for row in await session.execute(query)}

    async def results(self, project: str, batch_id: str, *, after: int, limit: int) -> Sequence[BatchResult]:
        items = (
            sa.select(*_BY_BATCH)
            .where(*_of(project, batch_id), _item.position > after)
            .order_by(_item.position)
            .limit(limit)
        )
        async with self._sessions.reading() as session:
            rows = (await session.execute(items)).mappings().all()
            ids = [row["execution_id"] for row in rows if row["state"] is not None]
            query = sa.select(executions).where(executions.c.project == project, executions.c.id.in_(ids))
            found = {row["id"]: execution_of(row) for row in (await session.execute(query)).mappings()}
        return [BatchResult(_item_of(row), found.get(row["execution_id"])) for row in rows]

    async def prune(self, *, older_than_id: str) -> int:
        abandoned = (
            sa.select(_item.project, _item.batch_id)
            .where(
                _item.batch_id < older_than_id,
                ~sa.exists().where(jobs.c.project == _item.project, jobs.c.id == _item.batch_id),
            )
            .distinct()
            .limit(PRUNE_BATCH)
        )
        place = sa.tuple_(_item.project, _item.batch_id)
        deleted = 0
        while True:
            async with self._sessions.reading() as session:
                found = [tuple(row) for row in await session.execute(abandoned)]
            if not found:
                return deleted
            async with self._sessions.writing() as session:
                deleted += (await session.execute(sa.delete(batch_items).where(place.in_(found)))).rowcount


def _of(project: str, batch_id: str) -> list[sa.ColumnElement[bool]]:
    return [_item.project == project, _item.batch_id == batch_id]


def _ran() -> sa.ColumnElement[bool]:
    return sa.and_(executions.c.project == _item.project, executions.c.id == _item.execution_id)


def _item_of(row: Mapping[Any, Any]) -> BatchItem:
    return BatchItem(
        row["position"], row["execution_id"], row["inputs"], state=row["state"], error=row["error"]
    )
