"""Optimizations and what happened in them."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa
from msgspec.structs import replace

from dspex.jobs.once import Once
from dspex.jobs.records import Job, JobState
from dspex.kit.paging import Page, encode_cursor
from dspex.optimizations.records import Counters, Ended, Event, Optimization, OptimizationFilter, Standing
from dspex.optimizations.rules import progress_of
from dspex.storage.encoding import time_text
from dspex.storage.sessions import Sessions, WriteSession
from dspex.storage.stores.claims import claim_key
from dspex.storage.stores.jobs import add_jobs, change_job, note_progress
from dspex.storage.stores.keys import moment_and_id
from dspex.storage.stores.keyset import past
from dspex.storage.stores.optimization_rows import (
    ended_of,
    optimization_of,
    optimization_row,
    standing_values,
    values_of_job,
    with_counters,
)
from dspex.storage.stores.paging import page
from dspex.storage.tables import optimization_events, optimization_journal, optimizations

_table = optimizations.c
_event = optimization_events.c
_PLACE = (_table.created_at, _table.id)
_END = (_table.completed_at, _table.id)
_ENDED = (
    *(_table.project, _table.id, _table.optimizer, _table.state),
    *(_table.started_at, _table.completed_at, _table.result),
)
_LISTED = [column for column in optimizations.columns if column.name != "best"]
PRUNE_BATCH = 100


class StoredOptimizations:
    """`optimizations.ports.OptimizationStore` over the tables."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def add(
        self, optimization: Optimization, job: Job, *, unique: bool = False, once: Once | None = None
    ) -> Optimization:
        project, identity, same = optimization.project, optimization.identity, None
        async with self._sessions.writing() as session:
            if unique:
                # Looking and adding are one: nobody else adds the same in between.
                await self._sessions.dialect.serialize(session, "optimizations", project, identity)
                same = await _same(session, project, identity)
            becomes = job if same is None else replace(job, id=same.id)
            before = await claim_key(session, self._sessions.dialect, becomes, once)
            if before is not None:
                query = sa.select(optimizations).where(_table.project == project, _table.id == before)
                return optimization_of((await session.execute(query)).mappings().one())
            if same is not None:
                return same
            await add_jobs(session, [job])
            await session.execute(sa.insert(optimizations).values(optimization_row(optimization)))
        return optimization

    async def get(self, project: str, optimization_id: str, *, whole: bool = True) -> Optimization | None:
        columns = optimizations.columns if whole else _LISTED
        query = sa.select(*columns).where(_table.project == project, _table.id == optimization_id)
        async with self._sessions.reading() as session:
            row = (await session.execute(query)).mappings().one_or_none()
        return None if row is None else optimization_of(row)

    async def list(
        self, project: str, where: OptimizationFilter, *, limit: int, cursor: str | None
    ) -> Page[Optimization]:
        query = sa.select(*_LISTED).where(_table.project == project)
        for name in ("program", "state", "optimizer", "author"):
            if (value := getattr(where, name)) is not None:
                query = query.where(_table[name] == value)
        if cursor is not None:
            query = query.where(past(_PLACE, moment_and_id(cursor), descending=True))
        query = query.order_by(*(one.desc() for one in _PLACE)).limit(limit + 1)
        async with self._sessions.reading() as session:
            found = [optimization_of(row) for row in (await session.execute(query)).mappings()]
        return page(found, limit, lambda last: encode_cursor(time_text(last.created_at), last.id))

    async def events(self, project: str, optimization_id: str, *, after: int, limit: int) -> Sequence[Event]:
        # Readers send any number: it need not fit into the column.
        behind = _event.number > sa.literal(after, sa.BigInteger())
        query = (
            sa.select(_event.number, _event.at, _event.body)
            .where(_event.project == project, _event.optimization_id == optimization_id, behind)
            .order_by(_event.number)
            .limit(limit)
        )
        async with self._sessions.reading() as session:
            return [Event(**row) for row in (await session.execute(query)).mappings()]

    async def last_event(self, project: str, optimization_id: str) -> int:
        query = sa.select(sa.func.max(_event.number)).where(
            _event.project == project, _event.optimization_id == optimization_id
        )
        async with self._sessions.reading() as session:
            return (await session.execute(query)).scalar_one() or 0

    async def ended(self, *, after: tuple[datetime, str] | None, limit: int) -> Sequence[Ended]:
        query = sa.select(*_ENDED).where(_table.completed_at.is_not(None))
        if after is not None:
            query = query.where(past(_END, after, descending=False))
        async with self._sessions.reading() as session:
            rows = (await session.execute(query.order_by(*_END).limit(limit))).mappings()
            return [ended_of(row) for row in rows]

    async def count_ended(self, project: str, *, since: datetime, until: datetime) -> Mapping[JobState, int]:
        query = (
            sa.select(_table.state, sa.func.count().label("ended"))
            .where(_table.project == project, _table.completed_at >= since, _table.completed_at < until)
            .group_by(_table.state)
        )
        async with self._sessions.reading() as session:
            return {row.state: row.ended for row in await session.execute(query)}

    async def change(self, before: Job, after: Job, followers: Sequence[Job] = ()) -> bool:
        async with self._sessions.writing() as session:
            if not await change_job(session, before, after, followers):
                return False
            await session.execute(
                sa.update(optimizations)
                .where(_table.project == after.project, _table.id == after.id)
                .values(values_of_job(after))
            )
        return True

    async def note(
        self, job: Job, standing: Standing, events: Sequence[Event] = (), *, best: bool = True
    ) -> bool:
        place = {"project": job.project, "optimization_id": job.id}
        rows = [{**place, "number": one.number, "at": one.at, "body": one.body} for one in events]
        async with self._sessions.writing() as session:
            if not await note_progress(session, job, progress_of(standing)):
                return False
            await session.execute(
                sa.update(optimizations)
                .where(_table.project == job.project, _table.id == job.id)
                .values(standing_values(standing, best=best))
            )
            if rows:
                insert = self._sessions.dialect.insert(optimization_events)
                await session.execute(insert.on_conflict_do_nothing(), rows)
        return True

    async def spent(self, project: str, optimization_id: str, counters: Counters) -> None:
        mine = (_table.project == project, _table.id == optimization_id)
        # For update: SQLite has one writer at a time as it is, and leaves it out.
        query = sa.select(_table.standing).where(*mine).with_for_update()
        async with self._sessions.writing() as session:
            stored = (await session.execute(query)).scalar_one_or_none()
            if stored is not None:
                standing = with_counters(stored, counters)
                await session.execute(sa.update(optimizations).where(*mine).values(standing=standing))

    async def prune(self, *, ended_before: datetime) -> int:
        has_more = sa.or_(
            *(
                sa.exists().where(table.c.project == _table.project, table.c.optimization_id == _table.id)
                for table in (optimization_journal, optimization_events)
            )
        )
        query = (
            sa.select(_table.project, _table.id)
            .where(_table.completed_at < ended_before, has_more)
            .limit(PRUNE_BATCH)
        )
        pruned = 0
        while True:
            async with self._sessions.reading() as session:
                found = [tuple(row) for row in await session.execute(query)]
            for project, optimization_id in found:
                async with self._sessions.writing() as session:
                    for table in (optimization_journal, optimization_events):
                        await session.execute(
                            sa.delete(table).where(
                                table.c.project == project, table.c.optimization_id == optimization_id
                            )
                        )
            pruned += len(found)
            if len(found) < PRUNE_BATCH:
                return pruned


async def _same(session: WriteSession, project: str, identity: str) -> Optimization | None:
    query = (
        sa.select(optimizations)
        .where(
            _table.project == project,
            _table.identity == identity,
            _table.state.not_in(("failed", "cancelled")),
        )
        .order_by(*(one.desc() for one in _PLACE))
        .limit(1)
    )
    row = (await session.execute(query)).mappings().one_or_none()
    return None if row is None else optimization_of(row)
