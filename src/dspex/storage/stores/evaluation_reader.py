"""Questions about evaluations."""

import builtins
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dspex.configuration.caching import CachePolicy
from dspex.evaluations.metrics.reading import metric_of
from dspex.evaluations.records import (
    Evaluation,
    EvaluationFilter,
    ExampleFailure,
    ExampleResult,
    Numbers,
    Pair,
    ResultFilter,
)
from dspex.jobs.records import JobError
from dspex.kit.paging import Page, decode_cursor, encode_cursor, fitting
from dspex.kit.records import asdict
from dspex.storage.encoding import time_text
from dspex.storage.sessions import Sessions
from dspex.storage.stores.keys import moment_and_id
from dspex.storage.stores.keyset import past
from dspex.storage.stores.paging import foreign_cursor, page
from dspex.storage.tables import evaluation_results, evaluations

_table, _result = evaluations.c, evaluation_results.c
_PLACE = (_table.created_at, _table.id)
PAGE_BYTES = 4_000_000
_MOST = 2**31 - 1
# The columns that a pair has of each side.
_SIDE = [
    column.name for column in evaluation_results.columns if column.name not in ("project", "evaluation_id")
]


class StoredEvaluationReader:
    """`evaluations.ports.EvaluationReader` over the tables."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def get(self, project: str, evaluation_id: str) -> Evaluation | None:
        query = sa.select(evaluations).where(_table.project == project, _table.id == evaluation_id)
        async with self._sessions.reading() as session:
            row = (await session.execute(query)).mappings().one_or_none()
        return None if row is None else _evaluation_of(row)

    async def list(
        self, project: str, where: EvaluationFilter, *, limit: int, cursor: str | None
    ) -> Page[Evaluation]:
        query = sa.select(evaluations).where(_table.project == project)
        for name, value in asdict(where).items():
            if value is not None:
                query = query.where(_table[name] == value)
        if cursor is not None:
            query = query.where(past(_PLACE, moment_and_id(cursor), descending=True))
        query = query.order_by(*(one.desc() for one in _PLACE)).limit(limit + 1)
        async with self._sessions.reading() as session:
            rows = (await session.execute(query)).mappings().all()
        found = [_evaluation_of(row) for row in rows]
        return page(found, limit, lambda last: encode_cursor(time_text(last.created_at), last.id))

    async def results(
        self, project: str, evaluation_id: str, where: ResultFilter, *, limit: int, cursor: str | None
    ) -> Page[ExampleResult]:
        of = [_result.project == project, _result.evaluation_id == evaluation_id]
        if where.state is not None:
            of.append(_result.score.is_(None) if where.state == "failed" else _result.score.is_not(None))
        place: tuple[sa.ColumnElement[Any], ...] = (_result.position,)
        if where.order == "score":
            of.append(_result.score.is_not(None))
            place = (_result.score, _result.position)
        if cursor is not None:
            of.append(past(place, _place_in(cursor, len(place)), descending=False))
        sizes = sa.select(_result.size).where(*of).order_by(*place).limit(limit + 1)
        async with self._sessions.reading() as session:
            # Their sizes first: the outputs that are not wanted might fill the memory.
            found = list((await session.execute(sizes)).scalars())
            count = fitting(found[:limit], PAGE_BYTES)
            query = sa.select(evaluation_results).where(*of).order_by(*place).limit(count)
            rows = [_result_of(row) for row in (await session.execute(query)).mappings()]
        if len(found) <= count or not rows:
            return Page(tuple(rows))
        last = rows[-1]
        end = (last.score, last.position) if where.order == "score" else (last.position,)
        return Page(tuple(rows), encode_cursor(*end))

    async def numbers(self, project: str, evaluation_id: str, *, after: int, limit: int) -> Sequence[Numbers]:
        columns = (
            _result.position,
            _result.score,
            _result.origin,
            _result.code,
            _result.latency_ms,
            _result.cost_usd,
            _result.metric_cost_usd,
            _result.cached,
            _result.lm_calls,
            _result.tokens,
        )
        query = (
            sa.select(*columns)
            .where(
                _result.project == project, _result.evaluation_id == evaluation_id, _result.position > after
            )
            .order_by(_result.position)
            .limit(limit)
        )
        async with self._sessions.reading() as session:
            rows = (await session.execute(query)).all()
        return [
            Numbers(position, score, None if origin is None else (origin, code), *rest)
            for position, score, origin, code, *rest in rows
        ]

    async def pairs(
        self, project: str, a: str, b: str, *, changed: bool, after: int, limit: int
    ) -> Sequence[Pair]:
        left, right = evaluation_results.alias("a"), evaluation_results.alias("b")
        columns = [
            sa.case((side.c.evaluation_id.is_(None), None), else_=1).label(f"{name}_there")
            for name, side in (("a", left), ("b", right))
        ]
        for name, side in (("a", left), ("b", right)):
            columns += [side.c[column].label(f"{name}_{column}") for column in _SIDE]
        positions = (
            sa.select(_result.position.label("position"))
            .where(_result.project == project, _result.evaluation_id.in_([a, b]), _result.position > after)
            .distinct()
            .subquery()
        )
        query = sa.select(positions.c.position, *columns).select_from(
            positions.outerjoin(left, _side(left, project, a, positions)).outerjoin(
                right, _side(right, project, b, positions)
            )
        )
        if changed:
            one, other = left.c.score, right.c.score
            query = query.where(
                sa.or_(
                    one != other,
                    sa.and_(one.is_(None), other.is_not(None)),
                    sa.and_(one.is_not(None), other.is_(None)),
                )
            )
        query = query.order_by(positions.c.position).limit(limit)
        async with self._sessions.reading() as session:
            rows = (await session.execute(query)).mappings().all()
        return [_pair_of(row) for row in rows]


def _side(side: Any, project: str, evaluation_id: str, positions: Any) -> sa.ColumnElement[bool]:
    return sa.and_(
        side.c.project == project,
        side.c.evaluation_id == evaluation_id,
        side.c.position == positions.c.position,
    )


def _place_in(cursor: str, parts: int) -> builtins.list[Any]:
    match decode_cursor(cursor, parts):
        case [int() as position] if 0 <= position <= _MOST:
            return [position]
        case [int() | float() as score, int() as position] if 0 <= position <= _MOST:
            return [float(score), position]
    raise foreign_cursor()


def _evaluation_of(row: Mapping[Any, Any]) -> Evaluation:
    known = {column.name: row[column.name] for column in evaluations.columns}
    cache, error = known.pop("cache"), known.pop("error")
    return Evaluation(
        **{**known, "metric": metric_of(known["metric"])},
        cache=None if cache is None else CachePolicy(**cache),
        error=None if error is None else JobError(**error),
    )


def _result_of(row: Mapping[Any, Any], side: str = "") -> ExampleResult:
    failure = row[f"{side}failure"]
    return ExampleResult(
        position=row[f"{side}position"],
        row_id=row[f"{side}row_id"],
        execution_id=row[f"{side}execution_id"],
        score=row[f"{side}score"],
        fields=row[f"{side}fields"],
        feedback=row[f"{side}feedback"],
        outputs=row[f"{side}outputs"],
        failure=None if failure is None else ExampleFailure(**failure),
        latency_ms=row[f"{side}latency_ms"],
        cost_usd=row[f"{side}cost_usd"],
        metric_cost_usd=row[f"{side}metric_cost_usd"],
        cached=row[f"{side}cached"],
        lm_calls=row[f"{side}lm_calls"],
        tokens=row[f"{side}tokens"],
    )


def _pair_of(row: Mapping[Any, Any]) -> Pair:
    a = _result_of(row, "a_") if row["a_there"] else None
    b = _result_of(row, "b_") if row["b_there"] else None
    known = a or b
    return Pair(row["position"], known.row_id if known else "", a, b)
