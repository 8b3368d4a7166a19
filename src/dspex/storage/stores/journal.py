"""The journals of optimizations. Writing is by hand: every reply of a model waits for it."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence, Set
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from dspex.kit.errors import DspexError, another
from dspex.optimizations.records import Kept, Totals
from dspex.storage.batches import BatchWriter, Row
from dspex.storage.encoding import escape, json_text
from dspex.storage.sessions import Sessions
from dspex.storage.stores.keyset import past
from dspex.storage.tables import optimization_journal

_table = optimization_journal.c
BATCH = 256


class _Waiting(Struct, frozen=True):
    row: Row
    done: "asyncio.Future[None]"


class StoredJournal:
    """`optimizations.ports.Journal` over the table. What comes during a commit goes into the next one together."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._writer: BatchWriter | None = None
        self._queue: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None

    async def keep(self, project: str, optimization_id: str, kept: Kept) -> None:
        row = (
            escape(project),
            optimization_id,
            kept.digest,
            kept.ordinal,
            self._sessions.dialect.moment(kept.at),
            kept.cost_usd,
            json_text(kept.reply),
        )
        waiting = _Waiting(row, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        await waiting.done

    async def places(self, project: str, optimization_id: str) -> Set[tuple[str, int]]:
        query = sa.select(_table.digest, _table.ordinal).where(*_of(project, optimization_id))
        async with self._sessions.reading() as session:
            return {(row.digest, row.ordinal) for row in await session.execute(query)}

    async def find(self, project: str, optimization_id: str, digest: str, ordinal: int) -> Kept | None:
        query = sa.select(_table.reply, _table.cost_usd, _table.at).where(
            *_of(project, optimization_id), _table.digest == digest, _table.ordinal == ordinal
        )
        async with self._sessions.reading() as session:
            row = (await session.execute(query)).one_or_none()
        return None if row is None else Kept(digest, ordinal, row.reply, row.cost_usd, row.at)

    async def page(
        self, project: str, optimization_id: str, *, after: tuple[str, int] | None, limit: int
    ) -> Sequence[Kept]:
        query = page_query(project, optimization_id, after, limit)
        async with self._sessions.reading() as session:
            return [Kept(*row) for row in await session.execute(query)]

    async def forget_failures(self, project: str, optimization_id: str, kinds: Set[str]) -> None:
        # As text: PostgreSQL refuses to look into JSON that has a NUL somewhere, and models write those.
        failures = sa.select(_table.digest, _table.ordinal, _table.reply).where(
            *_of(project, optimization_id), sa.cast(_table.reply, sa.Text).like('{"error":%')
        )
        async with self._sessions.reading() as session:
            rows = [tuple(row) for row in await session.execute(failures)]
        passing = [
            (digest, ordinal)
            for digest, ordinal, reply in rows
            if isinstance(reply["error"], dict) and reply["error"].get("kind") in kinds
        ]
        place = sa.tuple_(_table.digest, _table.ordinal)
        async with self._sessions.writing() as session:
            for first in range(0, len(passing), BATCH):
                batch = place.in_(passing[first : first + BATCH])
                await session.execute(
                    sa.delete(optimization_journal).where(*_of(project, optimization_id), batch)
                )

    async def totals(self, project: str, optimization_id: str) -> Totals:
        query = sa.select(
            sa.func.count(), sa.func.sum(_table.cost_usd), sa.func.count(_table.cost_usd)
        ).where(*_of(project, optimization_id))
        async with self._sessions.reading() as session:
            calls, cost, priced = (await session.execute(query)).one()
        return Totals(calls, round(cost or 0.0, 12), calls - priced)

    async def close(self) -> None:
        """Commits what is queued, then lets the connection go."""
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._writer is not None:
            await self._writer.close()

    async def _drain(self) -> None:
        try:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                await _write(self._ready_writer, batch)
        finally:
            self._task = None

    def _ready_writer(self) -> BatchWriter:
        if self._writer is None:
            self._writer = self._sessions.dialect.batch_writer(optimization_journal)
        return self._writer


def page_query(
    project: str, optimization_id: str, after: tuple[str, int] | None, limit: int
) -> "sa.Select[tuple[Any, ...]]":
    """By the primary key, so that the last page of a long journal is found as fast as the first one."""
    place = (_table.digest, _table.ordinal)
    query = sa.select(*place, _table.reply, _table.cost_usd, _table.at).where(*_of(project, optimization_id))
    if after is not None:
        query = query.where(past(place, after, descending=False))
    return query.order_by(*place).limit(limit)


async def _write(writer: Callable[[], BatchWriter], batch: list[_Waiting]) -> None:
    """Everybody who waits is told, also when there is no writer to be had."""
    try:
        await writer().write([one.row for one in batch])
    except Exception as error:
        for one in batch:
            if not one.done.done():
                # One for each waiter: an exception raised in several tasks would collect all their tracebacks.
                one.done.set_exception(another(error) if isinstance(error, DspexError) else error)
        return
    for one in batch:
        if not one.done.done():
            one.done.set_result(None)


def _of(project: str, optimization_id: str) -> "list[sa.ColumnElement[bool]]":
    return [_table.project == project, _table.optimization_id == optimization_id]
