"""Datasets kept in memory, for tests and throw-away servers."""

import builtins
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from dspex.datasets import errors
from dspex.datasets.records import Counts, Dataset, DatasetKind, Row
from dspex.kit.errors import Invalid, Problem
from dspex.kit.paging import Page, decode_cursor, encode_cursor, fitting

_Place = tuple[str, str]


class MemoryDatasets:
    """A `datasets.ports.DatasetStore`. Nothing awaits inside a method, so each is atomic on one event loop."""

    def __init__(self) -> None:
        self._staged: dict[_Place, Dataset] = {}
        self._published: dict[_Place, list[Dataset]] = {}
        self._highest: defaultdict[_Place, int] = defaultdict(int)
        self._rows: dict[_Place, list[Row]] = {}

    async def stage(self, dataset: Dataset) -> None:
        self._staged[dataset.project, dataset.id] = dataset
        self._rows[dataset.project, dataset.id] = []

    async def add(self, project: str, dataset_id: str, rows: Sequence[Row]) -> None:
        if (project, dataset_id) not in self._staged:
            raise errors.upload_lost()
        self._rows[project, dataset_id].extend(rows)

    async def publish(self, datasets: Sequence[Dataset]) -> Sequence[tuple[Dataset, bool]]:
        for one in datasets:
            if (one.project, one.id) not in self._staged:
                raise errors.upload_lost()
        return [self._publish(one) for one in datasets]

    def _publish(self, dataset: Dataset) -> tuple[Dataset, bool]:
        place = (dataset.project, dataset.name)
        versions = self._published.setdefault(place, [])
        for one in versions:
            if (one.kind, one.digest) == (dataset.kind, dataset.digest):
                return one, False
        self._highest[place] += 1
        versions.append(replace(dataset, version=self._highest[place]))
        del self._staged[dataset.project, dataset.id]
        return versions[-1], True

    async def drop(self, project: str, dataset_ids: Sequence[str]) -> None:
        for one in dataset_ids:
            if self._staged.pop((project, one), None) is not None:
                del self._rows[project, one]

    async def delete(
        self, project: str, name: str, version: int | None, *, at: datetime
    ) -> Sequence[Dataset]:
        versions = self._published.get((project, name), [])
        deleted = [one for one in versions if version in (None, one.version)]
        for one in deleted:
            versions.remove(one)
            self._rows.pop((project, one.id))
        return deleted

    async def prune(self, *, older_than_id: str) -> int:
        old = [place for place in self._staged if place[1] < older_than_id]
        for project, dataset_id in old:
            await self.drop(project, [dataset_id])
        return len(old)

    async def get(self, project: str, name: str, version: int) -> Dataset | None:
        return next((one for one in self._published.get((project, name), []) if one.version == version), None)

    async def latest(self, project: str, name: str) -> Dataset | None:
        versions = self._published.get((project, name))
        return versions[-1] if versions else None

    async def list(
        self, project: str, *, kind: DatasetKind | None, limit: int, cursor: str | None
    ) -> Page[Dataset]:
        after = "" if cursor is None else _name(cursor)
        found = [
            versions[-1]
            for (owner, name), versions in sorted(self._published.items())
            if owner == project and versions and name > after and kind in (None, versions[-1].kind)
        ]
        more = len(found) > limit
        return Page(tuple(found[:limit]), encode_cursor(found[limit - 1].name) if more else None)

    async def versions(self, project: str, name: str, *, limit: int, cursor: str | None) -> Page[Dataset]:
        before = 2**31 if cursor is None else _number(cursor)
        found = [one for one in reversed(self._published.get((project, name), [])) if one.version < before]
        more = len(found) > limit
        return Page(tuple(found[:limit]), encode_cursor(found[limit - 1].version) if more else None)

    async def rows(
        self, project: str, dataset_id: str, *, after: int, limit: int, most_bytes: int
    ) -> Sequence[Row]:
        found = self._rows.get((project, dataset_id), [])[after : after + limit]
        return found[: fitting((one.size for one in found), most_bytes)]

    async def rows_at(
        self, project: str, dataset_id: str, positions: Sequence[int], *, most_bytes: int
    ) -> Sequence[Row]:
        rows = self._rows.get((project, dataset_id), [])
        found = [rows[one - 1] for one in sorted(positions) if 0 < one <= len(rows)]
        return found[: fitting((one.size for one in found), most_bytes)]

    async def row(self, project: str, dataset_id: str, row_id: str) -> Row | None:
        return next((one for one in self._rows.get((project, dataset_id), []) if one.id == row_id), None)

    async def digests(
        self, project: str, dataset_id: str, *, after: int, limit: int
    ) -> Sequence[tuple[int, str]]:
        found = self._rows.get((project, dataset_id), [])[after : after + limit]
        return [(one.position, one.inputs_digest) for one in found]

    async def counts(self, project: str, dataset_id: str) -> Counts:
        rows = self._rows.get((project, dataset_id), [])
        return Counts(len(rows), len({one.digest for one in rows}), len({one.inputs_digest for one in rows}))

    async def holding(self, project: str, row_id: str) -> Sequence[Dataset]:
        found: builtins.list[Dataset] = []
        for (owner, _), versions in self._published.items():
            if owner == project:
                found += [one for one in versions if await self.row(project, one.id, row_id) is not None]
        return sorted(found, key=lambda one: one.id, reverse=True)


def _name(cursor: str) -> str:
    match decode_cursor(cursor, 1):
        case [str() as name]:
            return name
    raise _foreign()


def _number(cursor: str) -> int:
    match decode_cursor(cursor, 1):
        case [int() as number]:
            return number
    raise _foreign()


def _foreign() -> Invalid:
    return Invalid(
        "The cursor belongs to another list; leave it out to start from the first page.",
        code="bad_cursor",
        problems=[Problem("/cursor", "bad_cursor", "not a cursor of this list")],
    )
