"""Executions and who claimed an idempotency key."""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from dspex.executions.records import Execution, ExecutionError, IdempotencyClaim
from dspex.kit.records import asdict
from dspex.storage.sessions import WriteSession
from dspex.storage.stores.execution_reader import StoredExecutionReader
from dspex.storage.stores.execution_rows import execution_row
from dspex.storage.tables import NOT_COMPLETED, NOT_OVER, executions, idempotency_claims, jobs, nodes

UNFINISHED = ("pending", "running")
# Small enough that nobody waits long for the lock that a deletion holds.
PRUNE_BATCH = 500


class StoredExecutions(StoredExecutionReader):
    """`executions.ports.ExecutionStore` over the tables."""

    async def save(self, records: Sequence[Execution]) -> None:
        if not records:
            return
        dialect = self._sessions.dialect
        rows = [execution_row(record, dialect.moment) for record in records]
        async with self._sessions.writing() as session:
            await session.exec_driver_sql(dialect.upsert(executions), rows)

    async def fail_orphans(self, *, beat_before: datetime, at: datetime, reason: str) -> int:
        alive = sa.select(nodes.c.node).where(nodes.c.last_beat >= beat_before)
        # What runs in the background is its job's to look after.
        has_job = sa.exists().where(
            jobs.c.project == executions.c.project, jobs.c.id == executions.c.id, NOT_OVER
        )
        orphans = sa.and_(
            NOT_COMPLETED, executions.c.status.in_(UNFINISHED), executions.c.node.not_in(alive), ~has_job
        )
        error = ExecutionError("unavailable", "node_died", "NodeDied", reason)
        async with self._sessions.reading() as session:
            # Nearly always there are none, and looking takes no lock.
            if (await session.execute(sa.select(executions.c.id).where(orphans).limit(1))).first() is None:
                return 0
        async with self._sessions.writing() as session:
            done = await session.execute(
                sa.update(executions)
                .where(orphans)
                .values(status="failed", completed_at=at, error=asdict(error))
            )
        return done.rowcount

    async def prune(
        self, project: str | None, *, older_than: datetime | None, keep_newest: int | None
    ) -> int:
        pruned = 0
        for one in await self._projects() if project is None else [project]:
            if older_than is not None:
                pruned += await self._delete(one, executions.c.created_at < older_than)
            if keep_newest is not None:
                pruned += await self._delete_beyond(one, keep_newest)
        return pruned

    async def _projects(self) -> list[str]:
        async with self._sessions.reading() as session:
            return list((await session.execute(sa.select(executions.c.project).distinct())).scalars())

    async def _delete_beyond(self, project: str, keep_newest: int) -> int:
        first_too_many = (
            sa.select(executions.c.created_at, executions.c.id)
            .where(executions.c.project == project, executions.c.status.not_in(UNFINISHED))
            .order_by(executions.c.created_at.desc(), executions.c.id.desc())
            .offset(keep_newest)
            .limit(1)
        )
        async with self._sessions.reading() as session:
            found = (await session.execute(first_too_many)).one_or_none()
        if found is None:
            return 0
        at, last_id = found
        beyond = sa.or_(
            executions.c.created_at < at,
            sa.and_(executions.c.created_at == at, executions.c.id <= last_id),
        )
        return await self._delete(project, beyond)

    async def _delete(self, project: str, which: sa.ColumnElement[bool]) -> int:
        batch = (
            sa.select(executions.c.id)
            .where(executions.c.project == project, executions.c.status.not_in(UNFINISHED), which)
            .order_by(executions.c.created_at)
            .limit(PRUNE_BATCH)
        )
        deleted = 0
        while True:
            async with self._sessions.writing() as session:
                ids = list((await session.execute(batch)).scalars())
                if ids:
                    await _delete_with_claims(session, project, ids)
            deleted += len(ids)
            if len(ids) < PRUNE_BATCH:
                return deleted

    async def prune_claims(self, *, older_than: datetime) -> int:
        claims = idempotency_claims.c
        execution = sa.exists().where(
            executions.c.project == claims.project, executions.c.id == claims.execution_id
        )
        job = sa.exists().where(jobs.c.project == claims.project, jobs.c.id == claims.execution_id)
        batch = (
            sa.select(claims.project, claims.execution_id)
            .where(claims.created_at < older_than, ~execution, ~job)
            .limit(PRUNE_BATCH)
        )
        place = sa.tuple_(claims.project, claims.execution_id)
        deleted = 0
        while True:
            # Searched for without the lock. By its execution id: a claim taken over meanwhile has another.
            async with self._sessions.reading() as session:
                found = [tuple(row) for row in await session.execute(batch)]
            if not found:
                return deleted
            async with self._sessions.writing() as session:
                deleted += (
                    await session.execute(sa.delete(idempotency_claims).where(place.in_(found)))
                ).rowcount

    async def claim(self, claim: IdempotencyClaim) -> IdempotencyClaim:
        insert = self._sessions.dialect.insert(idempotency_claims)
        place = sa.and_(idempotency_claims.c.project == claim.project, idempotency_claims.c.key == claim.key)
        while True:
            async with self._sessions.writing() as session:
                done = await session.execute(insert.values(asdict(claim)).on_conflict_do_nothing())
                if done.rowcount == 1:
                    return claim
                held = await session.execute(sa.select(idempotency_claims).where(place))
                row = held.mappings().one_or_none()
            # None: its holder released it between the two statements.
            if row is not None:
                return IdempotencyClaim(**row)

    async def take_over(self, claim: IdempotencyClaim, *, from_execution: str) -> bool:
        query = (
            sa.update(idempotency_claims)
            .where(
                idempotency_claims.c.project == claim.project,
                idempotency_claims.c.key == claim.key,
                idempotency_claims.c.execution_id == from_execution,
            )
            .values(execution_id=claim.execution_id, node=claim.node, created_at=claim.created_at)
        )
        async with self._sessions.writing() as session:
            return (await session.execute(query)).rowcount == 1

    async def release(self, project: str, key: str, *, execution_id: str) -> None:
        query = sa.delete(idempotency_claims).where(
            idempotency_claims.c.project == project,
            idempotency_claims.c.key == key,
            idempotency_claims.c.execution_id == execution_id,
        )
        async with self._sessions.writing() as session:
            await session.execute(query)


async def _delete_with_claims(session: WriteSession, project: str, ids: list[str]) -> None:
    for table, column in (
        (idempotency_claims, idempotency_claims.c.execution_id),
        (executions, executions.c.id),
    ):
        await session.execute(sa.delete(table).where(table.c.project == project, column.in_(ids)))
