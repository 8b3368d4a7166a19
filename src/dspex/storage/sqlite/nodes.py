"""When each node was last heard of: asked for every few seconds, from the start on."""

from datetime import UTC, datetime

from dspex.storage.later import Deferred, SqlStoresLater
from dspex.storage.sqlite.statements import SqliteStatements

GONE = datetime.fromtimestamp(0, UTC)


class SqliteNodes(Deferred):
    """`executions.ports.Nodes` on a SQLite file."""

    def __init__(self, statements: SqliteStatements, later: SqlStoresLater) -> None:
        super().__init__(later, "nodes")
        self._statements = statements

    async def beat(self, node: str, at: datetime) -> None:
        await self._statements.write(
            "INSERT INTO nodes (node, last_beat) VALUES (?, ?) "
            "ON CONFLICT (node) DO UPDATE SET last_beat = excluded.last_beat",
            node,
            at,
        )

    async def leave(self, node: str) -> None:
        await self._statements.write("UPDATE nodes SET last_beat = ? WHERE node = ?", GONE, node)

    async def last_beat(self, node: str) -> datetime | None:
        found = await self._statements.read("SELECT last_beat FROM nodes WHERE node = ?", node)
        return datetime.fromisoformat(found[0]["last_beat"]) if found else None

    async def forget(self, *, beat_before: datetime) -> int:
        return await self._statements.write("DELETE FROM nodes WHERE last_beat < ?", beat_before)
