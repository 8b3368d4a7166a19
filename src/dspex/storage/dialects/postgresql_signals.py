"""Signals between nodes on one PostgreSQL server: LISTEN, and a look every few seconds besides."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dspex.kit.signals import Payload
from dspex.storage.dialects.postgresql import PostgresqlDialect
from dspex.storage.encoding import json_value
from dspex.storage.sessions import Sessions
from dspex.storage.signals import StoredSignal
from dspex.storage.tables import signals

if TYPE_CHECKING:
    import asyncpg

CHANNEL = "dspex_signals"
TIMEOUT_S = 5.0
# A connection that died without a word is found out this much later.
LOOK_S = 5.0


class PostgresqlSignals:
    """`storage.signals.SignalStore` on a server."""

    def __init__(self, dialect: PostgresqlDialect, sessions: Sessions) -> None:
        self._dialect = dialect
        self._sessions = sessions

    async def add(self, node: str, topic: str, payload: Payload, at: datetime) -> None:
        row = {"sent_at": at, "node": node, "topic": topic, "payload": dict(payload)}
        async with self._sessions.writing() as session:
            # One after the other, so that ids are in the order of commits.
            await self._dialect.serialize(session, "signals")
            await session.execute(sa.insert(signals).values(row))
            await session.execute(sa.text(f"NOTIFY {CHANNEL}"))

    async def prune(self, *, older_than: datetime) -> None:
        async with self._sessions.writing() as session:
            await session.execute(sa.delete(signals).where(signals.c.sent_at < older_than))

    def source(self) -> "PostgresqlSignalSource":
        return PostgresqlSignalSource(self._dialect)


class PostgresqlSignalSource:
    def __init__(self, dialect: PostgresqlDialect) -> None:
        self._dialect = dialect
        self._connection: asyncpg.Connection | None = None
        self._woken = asyncio.Event()

    async def newest(self) -> int:
        connection = await self._opened()
        return int(await connection.fetchval("SELECT coalesce(max(id), 0) FROM signals"))

    async def wait(self) -> None:
        await self._opened()
        # Not wait_for, which may swallow a cancellation that comes together with the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._woken.wait()
        self._woken.clear()

    async def since(self, last: int) -> Sequence[StoredSignal]:
        connection = await self._opened()
        rows = await connection.fetch(
            "SELECT id, node, topic, payload FROM signals WHERE id > $1 ORDER BY id", last
        )
        return [StoredSignal(row[0], row[1], row[2], json_value(row[3])) for row in rows]

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _opened(self) -> "asyncpg.Connection":
        if self._connection is None:
            self._connection = await self._dialect.connect(TIMEOUT_S)
            # Before anything is read: what is sent from now on wakes us.
            await self._connection.add_listener(CHANNEL, self._wake)
            self._connection.add_termination_listener(self._wake)
        return self._connection

    def _wake(self, *_: Any) -> None:
        self._woken.set()
