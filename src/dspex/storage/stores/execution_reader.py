"""Questions about executions."""

import builtins
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from dspex.executions.records import (
    COST_GROUPS,
    PAGE_SIZE,
    SORTS,
    CostGroup,
    CostLine,
    Execution,
    ExecutionFilter,
    ExecutionStatistics,
)
from dspex.kit.errors import Invalid, Problem
from dspex.kit.paging import Page, decode_cursor, encode_cursor, fitting
from dspex.storage.encoding import time_text
from dspex.storage.sessions import Sessions
from dspex.storage.stores.execution_rows import execution_of
from dspex.storage.stores.keyset import past
from dspex.storage.stores.paging import foreign_cursor
from dspex.storage.tables import NOT_COMPLETED, executions

PERCENTILES = (0.5, 0.95, 0.99)
MOST_VERSIONS = 2**31 - 1
# What is unknown sorts as if it were less than nothing.
_UNKNOWN = -1.0
_PLACE = [executions.c[name] for name in ("id", "created_at", "duration_ms", "cost_usd")]
_LISTED = [column for column in executions.columns if column.name not in ("calls", "steps")]
_JSON = [column for column in _LISTED if isinstance(column.type, sa.JSON)]
_SIZE = sum(
    (sa.func.coalesce(sa.func.length(sa.cast(column, sa.Text)), 0) for column in _JSON), sa.literal(0)
).label("size")


class StoredExecutionReader:
    """`executions.ports.ExecutionReader` over the tables."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def get(self, project: str, execution_id: str) -> Execution | None:
        query = sa.select(executions).where(executions.c.project == project, executions.c.id == execution_id)
        async with self._sessions.reading() as session:
            row = (await session.execute(query)).mappings().one_or_none()
        return None if row is None else execution_of(row)

    async def list(
        self, project: str, where: ExecutionFilter, *, sort: str, limit: int, cursor: str | None
    ) -> Page[Execution]:
        if sort not in SORTS:
            message = f"sort must be one of {', '.join(SORTS)}"
            raise Invalid(
                f"{sort!r} is no sort order; {message}.",
                code="bad_sort",
                problems=[Problem("/sort", "bad_sort", message)],
            )
        descending = sort.startswith("-")
        key = _sort_key(sort.lstrip("-"))
        order = [key, executions.c.id]
        query = sa.select(*_PLACE, _SIZE).where(*conditions(project, where)).limit(limit + 1)
        query = query.order_by(*(column.desc() if descending else column.asc() for column in order))
        if cursor is not None:
            query = query.where(past(order, _position(cursor, sort), descending=descending))
        if _impossible(where.version):
            return Page(())
        async with self._sessions.reading() as session:
            sized = (await session.execute(query)).all()
            count = fitting((row.size for row in sized[:limit]), PAGE_SIZE)
            whole = sa.select(*_LISTED).where(
                executions.c.project == project, executions.c.id.in_([row.id for row in sized[:count]])
            )
            rows = {row["id"]: row for row in (await session.execute(whole)).mappings()}
        # Not all are there when some were pruned between the two questions.
        data = tuple(execution_of(rows[row.id]) for row in sized[:count] if row.id in rows)
        return Page(data, _cursor(sized[count - 1], sort) if len(sized) > count else None)

    async def statistics(
        self,
        project: str,
        program: str,
        *,
        version: int | None,
        since: datetime | None,
        until: datetime | None,
    ) -> ExecutionStatistics:
        """`success_rate` is completed of completed and failed; durations are of all that have one."""
        where = sa.and_(
            *conditions(project, ExecutionFilter(program=program, version=version, since=since, until=until))
        )
        if _impossible(version):
            where = sa.false()
        async with self._sessions.reading() as session:
            totals = (await session.execute(_totals(where))).one()
            percentiles: builtins.list[float | None] = await self._sessions.dialect.percentiles(
                session, executions.c.duration_ms, where, PERCENTILES
            )
        finished = totals.completed + totals.failed
        return ExecutionStatistics(
            executions=totals.executions,
            completed=totals.completed,
            failed=totals.failed,
            success_rate=totals.completed / finished if finished else None,
            duration_avg_ms=totals.duration_avg_ms,
            duration_p50_ms=percentiles[0],
            duration_p95_ms=percentiles[1],
            duration_p99_ms=percentiles[2],
            input_tokens=int(totals.input_tokens),
            output_tokens=int(totals.output_tokens),
            total_tokens=int(totals.total_tokens),
            cost_usd=round(float(totals.cost_usd), 12),
            unpriced=totals.unpriced,
            saved_usd=round(float(totals.saved_usd), 12),
            cache_hits=totals.cache_hits,
            last_executed_at=totals.last_executed_at,
        )

    async def costs(
        self,
        project: str,
        *,
        by: Sequence[CostGroup],
        program: str | None,
        since: datetime | None,
        until: datetime | None,
    ) -> Sequence[CostLine]:
        where = ExecutionFilter(program=program, since=since, until=until)
        wanted = [name for name in COST_GROUPS if name in by]
        query = costs_query(self._sessions.dialect.day(executions.c.created_at), project, wanted, where)
        async with self._sessions.reading() as session:
            rows = (await session.execute(query)).mappings().all()
        return [
            CostLine(
                {name: _group(name, row[f"by_{name}"]) for name in wanted},
                executions=row["executions"],
                input_tokens=int(row["input_tokens"]),
                output_tokens=int(row["output_tokens"]),
                cost_usd=round(float(row["cost_usd"]), 12),
                saved_usd=round(float(row["saved_usd"]), 12),
                unpriced=row["unpriced"],
            )
            for row in rows
        ]


def costs_query(
    day: "sa.ColumnElement[Any]", project: str, groups: Sequence[CostGroup], where: ExecutionFilter
) -> "sa.Select[Any]":
    """A row for each of the groups, as `by_day` and so on, in the order of `groups`; days the newest first."""
    columns: dict[CostGroup, sa.ColumnElement[Any]] = {
        "day": day,
        # As it is, SQLite would choose the index that has it in order, and read every row for the rest.
        "program": executions.c.program.concat(sa.literal_column("''")),
        "model": executions.c.model,
        "key": executions.c.key_id,
    }
    query = sa.select(
        *(columns[name].label(f"by_{name}") for name in groups),
        sa.func.count().label("executions"),
        _sum(executions.c.input_tokens).label("input_tokens"),
        _sum(executions.c.output_tokens).label("output_tokens"),
        _sum(executions.c.cost_usd).label("cost_usd"),
        _sum(executions.c.saved_usd).label("saved_usd"),
        _count(executions.c.cost_usd.is_(None)).label("unpriced"),
    ).where(*conditions(project, where))
    # By number: databases don't see that the day is the same expression twice.
    query = query.group_by(*(sa.literal_column(str(number)) for number, _ in enumerate(groups, 1)))
    for number, name in enumerate(groups, 1):
        place: sa.ColumnElement[Any] = sa.literal_column(str(number))
        query = query.order_by(place.desc() if name == "day" else place.asc().nulls_first())
    return query


def conditions(project: str, where: ExecutionFilter) -> "list[sa.ColumnElement[bool]]":
    """The rows of a project that the filter means."""
    table = executions.c
    conditions = [table.project == project]
    for column, value in (
        (table.program, where.program),
        (table.version, where.version),
        (table.status, where.status),
        (table.session_id, where.session_id),
        (table.request_id, where.request_id),
        (table.key_id, where.key_id),
    ):
        if value is not None and not (column is table.version and _impossible(where.version)):
            conditions.append(column == value)
    if where.status not in (None, "completed"):
        # Said once more in the words of the partial index, which SQLite would not use otherwise.
        conditions.append(NOT_COMPLETED)
    if where.since is not None:
        conditions.append(table.created_at >= where.since)
    if where.until is not None:
        conditions.append(table.created_at < where.until)
    return conditions


def _impossible(version: int | None) -> bool:
    """Whether no column could hold this number; the driver would refuse to compare it."""
    return version is not None and not 0 <= version <= MOST_VERSIONS


def _sort_key(name: str) -> "sa.ColumnElement[Any]":
    if name == "created_at":
        return executions.c.created_at
    return sa.func.coalesce(executions.c[name], sa.literal_column(str(_UNKNOWN), sa.Double))


def _cursor(last: "sa.Row[*tuple[Any, ...]]", sort: str) -> str:
    name = sort.lstrip("-")
    if name == "created_at":
        return encode_cursor(sort, time_text(last.created_at), last.id)
    value = last.duration_ms if name == "duration_ms" else last.cost_usd
    return encode_cursor(sort, _UNKNOWN if value is None else value, last.id)


def _position(cursor: str, sort: str) -> tuple[datetime | float, str]:
    match decode_cursor(cursor, 3):
        case [str() as made_for, str() as at, str() as execution_id] if made_for == sort:
            try:
                moment = datetime.fromisoformat(at)
            except ValueError:
                raise foreign_cursor() from None
            if sort.endswith("created_at") and moment.tzinfo is not None:
                return moment, execution_id
        case [str() as made_for, int() | float() as value, str() as execution_id] if made_for == sort:
            if not sort.endswith("created_at") and abs(value) < 1e300:
                return float(value), execution_id
    raise foreign_cursor()


def _group(name: CostGroup, value: Any) -> str | None:
    return str(value) if name == "day" else value


def _sum(column: "sa.Column[Any]") -> "sa.ColumnElement[Any]":
    return sa.func.coalesce(sa.func.sum(column), 0)


def _count(condition: "sa.ColumnElement[bool]") -> "sa.ColumnElement[int]":
    return sa.func.count(sa.case((condition, 1)))


def _totals(where: "sa.ColumnElement[bool]") -> "sa.Select[Any]":
    table = executions.c
    return sa.select(
        sa.func.count().label("executions"),
        _count(table.status == "completed").label("completed"),
        _count(table.status == "failed").label("failed"),
        sa.func.avg(table.duration_ms).label("duration_avg_ms"),
        _sum(table.input_tokens).label("input_tokens"),
        _sum(table.output_tokens).label("output_tokens"),
        _sum(table.total_tokens).label("total_tokens"),
        _sum(table.cost_usd).label("cost_usd"),
        _count(table.cost_usd.is_(None)).label("unpriced"),
        _sum(table.saved_usd).label("saved_usd"),
        _count(table.cache == "hit").label("cache_hits"),
        sa.func.max(table.created_at).label("last_executed_at"),
    ).where(where)
