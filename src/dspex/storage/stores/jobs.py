"""Jobs and paused queues."""

import builtins
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from msgspec.structs import fields

from dspex.jobs.once import Claim, Once
from dspex.jobs.records import Job, JobCount, JobError, JobFilter
from dspex.kit.paging import Page, encode_cursor
from dspex.kit.records import asdict
from dspex.storage.encoding import time_text
from dspex.storage.sessions import ReadSession, Sessions, WriteSession
from dspex.storage.stores import claims
from dspex.storage.stores.keys import moment_and_id
from dspex.storage.stores.keyset import past
from dspex.storage.stores.paging import page
from dspex.storage.tables import NOT_OVER, batch_items, jobs, paused_queues

_table = jobs.c
_PLACE = (_table.created_at, _table.id)
_LONG = ("payload", "result")
_LISTED = [column for column in jobs.columns if column.name not in _LONG]
_FIELDS = {one.name for one in fields(Job)}
_CHANGED = (
    "state",
    "due_at",
    "attempts",
    "turn",
    "node",
    "started_at",
    "completed_at",
    "error",
    "result",
)
PRUNE_BATCH = 500


class StoredJobs:
    """`jobs.ports.JobStore` over the tables."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def add(self, *made: Job) -> None:
        async with self._sessions.writing() as session:
            await add_jobs(session, made)

    async def add_once(self, job: Job, once: Once) -> str:
        async with self._sessions.writing() as session:
            before = await claims.claim_key(session, self._sessions.dialect, job, once)
            if before is None:
                await add_jobs(session, [job])
        return before or job.id

    async def claimed(self, project: str, key: str) -> Claim | None:
        async with self._sessions.reading() as session:
            return await claims.claimed(session, project, key)

    async def get(self, project: str, job_id: str) -> Job | None:
        query = sa.select(jobs).where(_table.project == project, _table.id == job_id)
        async with self._sessions.reading() as session:
            row = (await session.execute(query)).mappings().one_or_none()
        return None if row is None else _job_of(row)

    async def list(self, project: str, where: JobFilter, *, limit: int, cursor: str | None) -> Page[Job]:
        query = sa.select(*_LISTED).where(_table.project == project)
        for name, value in asdict(where).items():
            if value is not None:
                query = query.where(_table[name] == value)
        if cursor is not None:
            query = query.where(past(_PLACE, moment_and_id(cursor), descending=True))
        query = query.order_by(*(one.desc() for one in _PLACE)).limit(limit + 1)
        found = await self._all(query)
        return page(found, limit, lambda last: encode_cursor(time_text(last.created_at), last.id))

    async def counts(self, project: str | None) -> Sequence[JobCount]:
        groups = (_table.kind, _table.queue, _table.state)
        query = sa.select(*groups, sa.func.count().label("jobs")).group_by(*groups).order_by(*groups)
        if project is not None:
            query = query.where(_table.project == project)
        async with self._sessions.reading() as session:
            return [JobCount(**row) for row in (await session.execute(query)).mappings()]

    async def waiting(self, queues: Sequence[str], *, at: datetime, limit: int) -> Sequence[Job]:
        paused = sa.select(paused_queues.c.queue)
        rank = (
            sa.func.row_number()
            .over(partition_by=_table.queue, order_by=(_table.priority, _table.created_at, _table.id))
            .label("rank")
        )
        ranked = (
            sa.select(*_LISTED, rank)
            .where(
                NOT_OVER,
                _table.state == "queued",
                _table.queue.in_(queues),
                _table.queue.not_in(paused),
                _table.due_at <= at,
            )
            .subquery()
        )
        return await self._all(sa.select(ranked).where(ranked.c.rank <= limit).order_by(ranked.c.rank))

    async def next_due(self, *, after: datetime) -> datetime | None:
        query = sa.select(sa.func.min(_table.due_at)).where(
            NOT_OVER, _table.state == "queued", _table.due_at > after
        )
        async with self._sessions.reading() as session:
            due: datetime | None = (await session.execute(query)).scalar_one()
        return due

    async def overdue(self, *, since: datetime) -> bool:
        paused = sa.select(paused_queues.c.queue)
        query = sa.select(_table.id).where(
            NOT_OVER, _table.state == "queued", _table.due_at < since, _table.queue.not_in(paused)
        )
        return await self._any(query)

    async def unfinished(self) -> bool:
        return await self._any(sa.select(_table.id).where(NOT_OVER))

    async def recorded(self) -> bool:
        return await self._any(sa.select(_table.id))

    async def _any(self, query: "sa.Select[Any]") -> bool:
        async with self._sessions.reading() as session:
            return (await session.execute(query.limit(1))).first() is not None

    async def running(self) -> Sequence[Job]:
        return await self._all(sa.select(*_LISTED).where(NOT_OVER, _table.state == "running"))

    async def change(self, before: Job, after: Job, followers: Sequence[Job] = ()) -> bool:
        async with self._sessions.writing() as session:
            return await change_job(session, before, after, followers)

    async def ask_cancel(self, project: str, job_id: str) -> bool:
        query = (
            sa.update(jobs)
            .where(_table.project == project, _table.id == job_id, _table.state == "running")
            .values(cancel_asked=True)
        )
        async with self._sessions.writing() as session:
            return (await session.execute(query)).rowcount == 1

    async def progress(self, job: Job, progress: Mapping[str, Any]) -> bool:
        async with self._sessions.writing() as session:
            return await note_progress(session, job, progress)

    async def pause(self, queue: str, at: datetime | None) -> None:
        async with self._sessions.writing() as session:
            if at is None:
                await session.execute(sa.delete(paused_queues).where(paused_queues.c.queue == queue))
                return
            insert = self._sessions.dialect.insert(paused_queues).values(queue=queue, paused_at=at)
            await session.execute(insert.on_conflict_do_nothing())

    async def paused(self) -> Mapping[str, datetime]:
        async with self._sessions.reading() as session:
            return {row.queue: row.paused_at for row in await session.execute(sa.select(paused_queues))}

    async def prune(self, *, completed_before: datetime) -> int:
        place = sa.tuple_(_table.project, _table.id)
        item = sa.tuple_(batch_items.c.project, batch_items.c.batch_id)
        batch = (
            sa.select(_table.project, _table.id)
            .where(_table.completed_at < completed_before)
            .limit(PRUNE_BATCH)
        )
        deleted = 0
        while True:
            async with self._sessions.reading() as session:
                found = [tuple(row) for row in await session.execute(batch)]
            if not found:
                return deleted
            async with self._sessions.writing() as session:
                await session.execute(sa.delete(batch_items).where(item.in_(found)))
                deleted += (await session.execute(sa.delete(jobs).where(place.in_(found)))).rowcount

    async def _all(self, query: "sa.Select[Any]") -> "builtins.list[Job]":
        async with self._sessions.reading() as session:
            return [_job_of(row) for row in (await session.execute(query)).mappings()]


async def add_jobs(session: WriteSession, made: Sequence[Job]) -> None:
    await session.execute(sa.insert(jobs), [_row_of(job) for job in made])


async def change_job(session: WriteSession, before: Job, after: Job, followers: Sequence[Job]) -> bool:
    """As `Changes.change`, as a part of the transaction."""
    row = _row_of(after)
    values = {name: row[name] for name in _CHANGED}
    if before.completed_at is not None:
        # Begun anew: what was asked of it before counts no more.
        values["cancel_asked"] = False
    done = await session.execute(sa.update(jobs).where(*_as_it_was(before)).values(values))
    if done.rowcount != 1:
        return False
    if followers:
        await add_jobs(session, followers)
    return True


async def note_progress(session: WriteSession, job: Job, progress: Mapping[str, Any]) -> bool:
    done = await session.execute(sa.update(jobs).where(*_as_it_was(job)).values(progress=progress))
    return done.rowcount == 1


async def is_as_it_was(session: ReadSession, job: Job) -> bool:
    return (await session.execute(sa.select(_table.id).where(*_as_it_was(job)))).first() is not None


async def held(session: WriteSession, job: Job) -> bool:
    """Whether it is as it was begun and nobody has asked for its end; so it stays until the transaction ends."""
    # For update: SQLite has one writer at a time as it is, and leaves it out.
    query = sa.select(_table.cancel_asked).where(*_as_it_was(job)).with_for_update()
    return (await session.execute(query)).scalar_one_or_none() is False


def _as_it_was(job: Job) -> "builtins.list[sa.ColumnElement[bool]]":
    return [
        _table.project == job.project,
        _table.id == job.id,
        _table.state == job.state,
        _table.turn == job.turn,
        _table.attempts == job.attempts,
    ]


def _row_of(job: Job) -> dict[str, Any]:
    row = {name: getattr(job, name) for name in _FIELDS}
    row["error"] = None if job.error is None else asdict(job.error)
    return row


def _job_of(row: Mapping[Any, Any]) -> Job:
    known = {name: row[name] for name in _FIELDS if name not in _LONG}
    error = known.pop("error")
    return Job(
        **known,
        error=None if error is None else JobError(**error),
        payload=row.get("payload", {}),
        result=row.get("result"),
    )
