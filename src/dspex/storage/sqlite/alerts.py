"""Alerts: what a node that answers predictions does every few seconds. What is seldom is left to SQLAlchemy."""

from collections.abc import Sequence
from datetime import datetime

from dspex.observability.records import Lasting, Part
from dspex.storage.alert_rows import lasting_of, parts_of, thresholds_text
from dspex.storage.encoding import unescape
from dspex.storage.later import Deferred, SqlStoresLater
from dspex.storage.sqlite.statements import Parameter, SqliteStatements

_ADD = """
INSERT INTO alert_parts (began, project, program, ended, failed, slowest_s, slowest_pool_s, thresholds)
VALUES {rows}
ON CONFLICT (began, project, program) DO UPDATE SET ended = ended + excluded.ended,
failed = failed + excluded.failed, slowest_s = max(slowest_s, excluded.slowest_s),
slowest_pool_s = max(slowest_pool_s, excluded.slowest_pool_s), thresholds = excluded.thresholds
"""
_SEEN = """
SELECT project, program, max(began) AS began, sum(ended) AS ended, sum(failed) AS failed,
max(slowest_s) AS slowest_s, max(slowest_pool_s) AS slowest_pool_s, thresholds
FROM alert_parts WHERE began > ? AND began <= ? GROUP BY project, program, thresholds ORDER BY max(began)
"""
_USELESS = "DELETE FROM alert_parts WHERE began < ? OR began > ?"
_LONG_OVER = "DELETE FROM alerts WHERE resolved_at < ?"
_TIMES = ("began", "raised_at", "told_at")


class SqliteAlertBoard(Deferred):
    """`observability.ports.AlertBoard` on a SQLite file."""

    def __init__(self, statements: SqliteStatements, later: SqlStoresLater) -> None:
        super().__init__(later, "alerts")
        self._statements = statements

    async def add(self, parts: Sequence[Part]) -> None:
        values: list[Parameter] = []
        for part in parts:
            values += part.began, part.project, part.program, part.ended, part.failed
            values += part.slowest_s, part.slowest_pool_s, thresholds_text(part.thresholds)
        rows = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(parts))
        await self._statements.write(_ADD.format(rows=rows), *values)

    async def seen(self, *, since: datetime, until: datetime) -> Sequence[Part]:
        return parts_of([_value(row) for row in await self._statements.read(_SEEN, since, until)])

    async def active(self) -> Sequence[Lasting]:
        rows = await self._statements.read("SELECT * FROM alerts WHERE resolved_at IS NULL")
        return [lasting_of(_value(row)) for row in rows]

    async def prune(
        self, *, parts_before: datetime, parts_after: datetime, resolved_before: datetime
    ) -> None:
        await self._statements.write(_USELESS, parts_before, parts_after)
        await self._statements.write(_LONG_OVER, resolved_before)


def _value(row: dict[str, object]) -> dict[str, object]:
    return {
        name: datetime.fromisoformat(value)
        if name in _TIMES and isinstance(value, str)
        else unescape(value)
        if isinstance(value, str)
        else value
        for name, value in row.items()
    }
