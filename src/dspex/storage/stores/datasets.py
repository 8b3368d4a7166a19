"""Datasets, and the staging of what is not whole yet.

A staged version has no number; a deleted one has a time, and its number is never given away again.
"""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from msgspec.structs import replace

from dspex.datasets import errors
from dspex.datasets.records import Dataset, Row
from dspex.storage.sessions import ReadSession, WriteSession
from dspex.storage.stores.dataset_reader import MOST_VERSION, StoredDatasetReader, dataset_of
from dspex.storage.tables import dataset_rows, datasets

DELETE_BATCH = 500
_table, _row = datasets.c, dataset_rows.c


class StoredDatasets(StoredDatasetReader):
    """`datasets.ports.DatasetStore` over the tables."""

    async def stage(self, dataset: Dataset) -> None:
        async with self._sessions.writing() as session:
            await session.execute(
                sa.insert(datasets).values(
                    project=dataset.project,
                    id=dataset.id,
                    name=dataset.name,
                    kind=dataset.kind,
                    created_at=dataset.created_at,
                    description=dataset.description,
                    metadata=dataset.metadata,
                    origin=dataset.origin,
                    digest="",
                    rows=0,
                    fields={},
                )
            )

    async def add(self, project: str, dataset_id: str, rows: Sequence[Row]) -> None:
        values = [
            {
                "project": project,
                "dataset_id": dataset_id,
                "position": one.position,
                "row_id": one.id,
                "digest": one.digest,
                "inputs_digest": one.inputs_digest,
                "size": one.size,
                "inputs": one.inputs,
                "outputs": one.outputs,
                "metadata": one.metadata,
                "provenance": one.provenance,
            }
            for one in rows
        ]
        async with self._sessions.writing() as session:
            # Held until the commit: what is swept away meanwhile must not leave rows behind.
            staged = sa.select(_table.id).where(_staged(project, dataset_id)).with_for_update(read=True)
            if (await session.execute(staged)).scalar_one_or_none() is None:
                raise errors.upload_lost()
            await session.execute(sa.insert(dataset_rows), values)

    async def publish(self, datasets: Sequence[Dataset]) -> Sequence[tuple[Dataset, bool]]:
        async with self._sessions.writing() as session:
            # In one order, lest two that publish the same names wait for each other.
            for project, name in sorted({(one.project, one.name) for one in datasets}):
                await self._sessions.dialect.serialize(session, "datasets", project, name)
            return [await _publish(session, one) for one in datasets]

    async def drop(self, project: str, dataset_ids: Sequence[str]) -> None:
        for dataset_id in dataset_ids:
            this = sa.and_(_table.project == project, _table.id == dataset_id, _table.version.is_(None))
            async with self._sessions.writing() as session:
                # First, so that nobody publishes it while its rows go.
                staged = sa.update(datasets).where(this).values(deleted_at=_table.created_at)
                if (await session.execute(staged)).rowcount == 0:
                    # Published after all, by a commit whose answer got lost.
                    continue
            await self._delete_rows(project, dataset_id)
            async with self._sessions.writing() as session:
                await session.execute(sa.delete(datasets).where(this))

    async def delete(
        self, project: str, name: str, version: int | None, *, at: datetime
    ) -> Sequence[Dataset]:
        there = [_table.project == project, _table.name == name, _table.deleted_at.is_(None)]
        there.append(_table.version.is_not(None) if version is None else _table.version == version)
        if version is not None and not 0 < version <= MOST_VERSION:
            return []
        async with self._sessions.writing() as session:
            found = (await session.execute(sa.select(datasets).where(*there))).mappings().all()
            # Of what was in it nothing stays but that it was there.
            await session.execute(
                sa.update(datasets)
                .where(*there)
                .values(deleted_at=at, description=None, metadata={}, fields={}, origin={})
            )
        for row in found:
            await self._delete_rows(project, row["id"])
        return [dataset_of(row) for row in found]

    async def prune(self, *, older_than_id: str) -> int:
        staged = sa.and_(_table.version.is_(None), _table.id < older_than_id)
        left = sa.exists().where(_row.project == _table.project, _row.dataset_id == _table.id)
        query = sa.select(_table.project, _table.id, _table.version).where(
            sa.or_(staged, sa.and_(_table.version.is_not(None), _table.deleted_at.is_not(None), left))
        )
        async with self._sessions.reading() as session:
            found = (await session.execute(query)).all()
        for row in found:
            if row.version is None:
                await self.drop(row.project, [row.id])
            else:
                await self._delete_rows(row.project, row.id)
        return len(found)

    async def _delete_rows(self, project: str, dataset_id: str) -> None:
        position = sa.select(_row.position).where(_row.project == project, _row.dataset_id == dataset_id)
        while True:
            async with self._sessions.reading() as session:
                found = list((await session.execute(position.limit(DELETE_BATCH))).scalars())
            if not found:
                return
            async with self._sessions.writing() as session:
                await session.execute(
                    sa.delete(dataset_rows).where(
                        _row.project == project, _row.dataset_id == dataset_id, _row.position.in_(found)
                    )
                )


def _staged(project: str, dataset_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        _table.project == project,
        _table.id == dataset_id,
        _table.version.is_(None),
        _table.deleted_at.is_(None),
    )


async def _publish(session: WriteSession, dataset: Dataset) -> tuple[Dataset, bool]:
    same = await _same(session, dataset)
    if same is not None:
        return same, False
    newest = sa.select(sa.func.max(_table.version)).where(
        _table.project == dataset.project, _table.name == dataset.name
    )
    version = ((await session.execute(newest)).scalar_one() or 0) + 1
    done = await session.execute(
        sa.update(datasets)
        .where(_staged(dataset.project, dataset.id))
        .values(version=version, digest=dataset.digest, rows=dataset.rows, fields=dataset.fields)
    )
    if done.rowcount != 1:
        raise errors.upload_lost()
    return replace(dataset, version=version), True


async def _same(session: ReadSession, dataset: Dataset) -> Dataset | None:
    query = (
        sa.select(datasets)
        .where(
            _table.project == dataset.project,
            _table.name == dataset.name,
            _table.kind == dataset.kind,
            _table.digest == dataset.digest,
            _table.version.is_not(None),
            _table.deleted_at.is_(None),
        )
        .order_by(_table.version)
        .limit(1)
    )
    row = (await session.execute(query)).mappings().one_or_none()
    return None if row is None else dataset_of(row)
