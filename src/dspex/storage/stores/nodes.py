"""When each node was last heard of."""

from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from dspex.storage.sessions import Sessions
from dspex.storage.tables import nodes

GONE = datetime.fromtimestamp(0, UTC)


class StoredNodes:
    """`executions.ports.Nodes` over the table."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def beat(self, node: str, at: datetime) -> None:
        insert = self._sessions.dialect.insert(nodes).values(node=node, last_beat=at)
        async with self._sessions.writing() as session:
            await session.execute(
                insert.on_conflict_do_update(index_elements=[nodes.c.node], set_={"last_beat": at})
            )

    async def leave(self, node: str) -> None:
        async with self._sessions.writing() as session:
            await session.execute(sa.update(nodes).where(nodes.c.node == node).values(last_beat=GONE))

    async def last_beat(self, node: str) -> datetime | None:
        async with self._sessions.reading() as session:
            found = await session.execute(sa.select(nodes.c.last_beat).where(nodes.c.node == node))
            return found.scalar_one_or_none()

    async def alive(self, *, beat_after: datetime) -> Sequence[str]:
        wanted = sa.select(nodes.c.node).where(nodes.c.last_beat > beat_after).order_by(nodes.c.node)
        async with self._sessions.reading() as session:
            return (await session.execute(wanted)).scalars().all()

    async def forget(self, *, beat_before: datetime) -> int:
        async with self._sessions.writing() as session:
            done = await session.execute(sa.delete(nodes).where(nodes.c.last_beat < beat_before))
        return done.rowcount
