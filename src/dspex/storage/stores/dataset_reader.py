"""Questions about datasets."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dspex.datasets.records import Counts, Dataset, DatasetKind, Row
from dspex.kit.paging import Page, decode_cursor, encode_cursor, fitting
from dspex.storage.sessions import Sessions
from dspex.storage.stores.paging import foreign_cursor, last_name, page
from dspex.storage.tables import dataset_rows, datasets

MOST_VERSION = 2**31 - 1
# Of one question: SQLite takes some thousand parameters at the most.
MOST_POSITIONS = 500
_table, _row = datasets.c, dataset_rows.c
_THERE = sa.and_(_table.version.is_not(None), _table.deleted_at.is_(None))


class StoredDatasetReader:
    """`datasets.ports.DatasetReader` over the tables."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def get(self, project: str, name: str, version: int) -> Dataset | None:
        if not 0 < version <= MOST_VERSION:
            return None
        return await self._one(_of(project, name).where(_table.version == version))

    async def latest(self, project: str, name: str) -> Dataset | None:
        return await self._one(_of(project, name).order_by(_table.version.desc()).limit(1))

    async def _one(self, query: "sa.Select[Any]") -> Dataset | None:
        async with self._sessions.reading() as session:
            row = (await session.execute(query)).mappings().one_or_none()
        return None if row is None else dataset_of(row)

    async def list(
        self, project: str, *, kind: DatasetKind | None, limit: int, cursor: str | None
    ) -> Page[Dataset]:
        newest = (
            sa.select(_table.name.label("name"), sa.func.max(_table.version).label("version"))
            .where(_table.project == project, _THERE)
            .group_by(_table.name)
            .subquery()
        )
        query = (
            sa.select(datasets)
            .join(newest, sa.and_(newest.c.name == _table.name, newest.c.version == _table.version))
            .where(_table.project == project)
            .order_by(_table.name)
            .limit(limit + 1)
        )
        if kind is not None:
            query = query.where(_table.kind == kind)
        if cursor is not None:
            query = query.where(_table.name > last_name(cursor))
        async with self._sessions.reading() as session:
            rows = (await session.execute(query)).mappings().all()
        return page([dataset_of(row) for row in rows], limit, lambda last: encode_cursor(last.name))

    async def versions(self, project: str, name: str, *, limit: int, cursor: str | None) -> Page[Dataset]:
        query = _of(project, name).order_by(_table.version.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(_table.version < _number(cursor))
        async with self._sessions.reading() as session:
            rows = (await session.execute(query)).mappings().all()
        return page([dataset_of(row) for row in rows], limit, lambda last: encode_cursor(last.version))

    async def rows(
        self, project: str, dataset_id: str, *, after: int, limit: int, most_bytes: int
    ) -> Sequence[Row]:
        of = [_row.project == project, _row.dataset_id == dataset_id, _row.position > after]
        sizes = sa.select(_row.size).where(*of).order_by(_row.position).limit(limit)
        async with self._sessions.reading() as session:
            # Their sizes first: the rows that are not wanted might fill the memory.
            count = fitting((await session.execute(sizes)).scalars(), most_bytes)
            query = sa.select(dataset_rows).where(*of).order_by(_row.position).limit(count)
            return [_row_of(row) for row in (await session.execute(query)).mappings()]

    async def rows_at(
        self, project: str, dataset_id: str, positions: Sequence[int], *, most_bytes: int
    ) -> Sequence[Row]:
        found: dict[int, int] = {}
        of = [_row.project == project, _row.dataset_id == dataset_id]
        async with self._sessions.reading() as session:
            for some in _pieces(sorted(positions)):
                query = sa.select(_row.position, _row.size).where(*of, _row.position.in_(some))
                found |= {row.position: row.size for row in await session.execute(query)}
            wanted = sorted(found)
            wanted = wanted[: fitting((found[one] for one in wanted), most_bytes)]
            rows: list[Row] = []
            for some in _pieces(wanted):
                whole = sa.select(dataset_rows).where(*of, _row.position.in_(some)).order_by(_row.position)
                rows += [_row_of(row) for row in (await session.execute(whole)).mappings()]
        return rows

    async def row(self, project: str, dataset_id: str, row_id: str) -> Row | None:
        query = sa.select(dataset_rows).where(
            _row.project == project, _row.dataset_id == dataset_id, _row.row_id == row_id
        )
        async with self._sessions.reading() as session:
            row = (await session.execute(query)).mappings().one_or_none()
        return None if row is None else _row_of(row)

    async def digests(
        self, project: str, dataset_id: str, *, after: int, limit: int
    ) -> Sequence[tuple[int, str]]:
        query = (
            sa.select(_row.position, _row.inputs_digest)
            .where(_row.project == project, _row.dataset_id == dataset_id, _row.position > after)
            .order_by(_row.position)
            .limit(limit)
        )
        async with self._sessions.reading() as session:
            return [(row.position, row.inputs_digest) for row in await session.execute(query)]

    async def counts(self, project: str, dataset_id: str) -> Counts:
        query = sa.select(
            sa.func.count(),
            sa.func.count(sa.distinct(_row.digest)),
            sa.func.count(sa.distinct(_row.inputs_digest)),
        ).where(_row.project == project, _row.dataset_id == dataset_id)
        async with self._sessions.reading() as session:
            row = (await session.execute(query)).one()
        return Counts(row[0], row[1], row[2])

    async def holding(self, project: str, row_id: str) -> Sequence[Dataset]:
        query = (
            sa.select(datasets)
            .join(dataset_rows, sa.and_(_row.project == _table.project, _row.dataset_id == _table.id))
            .where(_table.project == project, _row.row_id == row_id, _THERE)
            .order_by(_table.id.desc())
        )
        async with self._sessions.reading() as session:
            return [dataset_of(row) for row in (await session.execute(query)).mappings()]


def _of(project: str, name: str) -> "sa.Select[Any]":
    return sa.select(datasets).where(_table.project == project, _table.name == name, _THERE)


def _pieces(positions: Sequence[int]) -> "list[Sequence[int]]":
    return [positions[at : at + MOST_POSITIONS] for at in range(0, len(positions), MOST_POSITIONS)]


def _number(cursor: str) -> int:
    match decode_cursor(cursor, 1):
        case [int() as number] if 0 < number <= MOST_VERSION:
            return number
    raise foreign_cursor()


def dataset_of(row: Mapping[Any, Any]) -> Dataset:
    return Dataset(
        id=row["id"],
        project=row["project"],
        name=row["name"],
        version=row["version"],
        kind=row["kind"],
        digest=row["digest"],
        rows=row["rows"],
        fields=row["fields"],
        created_at=row["created_at"],
        description=row["description"],
        metadata=row["metadata"],
        origin=row["origin"],
    )


def _row_of(row: Mapping[Any, Any]) -> Row:
    return Row(
        position=row["position"],
        id=row["row_id"],
        inputs=row["inputs"],
        outputs=row["outputs"],
        digest=row["digest"],
        inputs_digest=row["inputs_digest"],
        size=row["size"],
        metadata=row["metadata"],
        provenance=row["provenance"],
    )
