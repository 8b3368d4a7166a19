"""Making datasets, reading them, taking samples and splits."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from dspex.datasets import choosing, errors
from dspex.datasets.checking import Checker, check_rows
from dspex.datasets.columns import Columns, Record, example_in
from dspex.datasets.ports import DatasetStore, Loader
from dspex.datasets.records import (
    KINDS,
    Bounds,
    Dataset,
    DatasetKind,
    Example,
    FileFormat,
    NewDataset,
    Row,
    Verdict,
)
from dspex.datasets.statistics import Statistics, report
from dspex.datasets.writing import Staging, until_full
from dspex.kit.clock import Clock
from dspex.kit.errors import Exhausted, Invalid, Problem
from dspex.kit.paging import Page, decode_cursor, encode_cursor
from dspex.signatures.records import Signature

PAGE, PAGE_BYTES = 500, 4_000_000
DIGESTS = 5000
# Files that are read at once, in this process.
AT_ONCE = 2
MOST_SAMPLED = 1000
# Rows, and bytes read of the file.
Tell = Callable[[int, int], None]


class Datasets:
    def __init__(self, store: DatasetStore, loader: Loader, clock: Clock, bounds: Bounds) -> None:
        self._store = store
        self._loader = loader
        self._clock = clock
        self.bounds = bounds
        self._loading = 0

    async def create(
        self, project: str, new: NewDataset, examples: Iterable[Example | Sequence[Problem]]
    ) -> tuple[Dataset, bool]:
        """The version with these rows; False when it was there before. Places are indices: /rows/0.

        Raises Invalid: bad_name, bad_dataset (naming up to a hundred problems), empty_dataset, dataset_too_large,
        too_many_fields; nothing is kept then.
        """
        return await self._stored(
            project, new, ((f"/rows/{index}", one) for index, one in enumerate(examples))
        )

    async def append_all(
        self, project: str, new: NewDataset, examples: AsyncIterator[Example]
    ) -> tuple[Dataset, bool]:
        """As `create`, for examples that are read from elsewhere meanwhile."""
        async with Staging.begun(self._store, self.bounds, self._clock) as staging:
            writer = await staging.writer(project, new)
            index = 0
            async for one in examples:
                writer.take(one, f"/rows/{index}")
                index += 1
                if writer.full:
                    await writer.flush()
            (done,) = await staging.publish([writer])
        return done

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Around an upload and `load`. Raises Exhausted (code datasets_busy): files take room and time."""
        if self._loading >= AT_ONCE:
            raise Exhausted(
                f"{AT_ONCE} files are being loaded here already; try again soon.",
                code="datasets_busy",
                retry_after=5,
            )
        self._loading += 1
        try:
            yield
        finally:
            self._loading -= 1

    def check_format(self, form: FileFormat) -> None:
        """Raises Unavailable (code data_extra_missing)."""
        self._loader.check(form)

    async def load(
        self,
        project: str,
        new: NewDataset,
        file: BinaryIO,
        form: FileFormat,
        columns: Columns | None,
        *,
        tell: Tell | None = None,
    ) -> tuple[Dataset, bool]:
        """As `create`, from a file that can be sought in; places are lines: /17. Raises bad_file as well."""
        self._loader.check(form)
        records = self._loader.records(file, form, self.bounds.row_bytes)
        return await self._stored(project, new, _examples(records, columns), tell and _telling(tell, file))

    async def _stored(
        self,
        project: str,
        new: NewDataset,
        examples: Iterator[tuple[str, Example | Sequence[Problem]]],
        tell: Callable[[int], None] | None = None,
    ) -> tuple[Dataset, bool]:
        async with Staging.begun(self._store, self.bounds, self._clock) as staging:
            writer = await staging.writer(project, new)
            # In a thread: others are answered meanwhile.
            more = True
            while more:
                more = await asyncio.to_thread(until_full, writer, examples)
                await writer.flush()
                if tell is not None:
                    tell(writer.rows)
            (done,) = await staging.publish([writer])
        return done

    async def get(self, project: str, name: str, version: int | None = None) -> Dataset:
        """That version, or the latest. Raises Missing (code dataset_missing)."""
        if version is None:
            found = await self._store.latest(project, name)
        else:
            found = await self._store.get(project, name, version)
        if found is None:
            raise errors.missing(name, version)
        return found

    async def list(
        self, project: str, *, kind: DatasetKind | None = None, limit: int, cursor: str | None
    ) -> Page[Dataset]:
        """The latest version of each, by name."""
        return await self._store.list(project, kind=kind, limit=limit, cursor=cursor)

    async def versions(self, project: str, name: str, *, limit: int, cursor: str | None) -> Page[Dataset]:
        """Newest first. Raises Missing for a name without any."""
        await self.get(project, name)
        return await self._store.versions(project, name, limit=limit, cursor=cursor)

    async def rows(self, dataset: Dataset, *, limit: int, cursor: str | None) -> Page[Row]:
        """In order. A page may end early, before its rows get too large."""
        after = 0 if cursor is None else _position(cursor)
        found = await self._store.rows(
            dataset.project, dataset.id, after=after, limit=limit, most_bytes=PAGE_BYTES
        )
        more = bool(found) and found[-1].position < dataset.rows
        return Page(tuple(found), encode_cursor(found[-1].position) if more else None)

    async def all_rows(self, dataset: Dataset, *, after: int = 0) -> AsyncIterator[Sequence[Row]]:
        """Every row in order, some at a time."""
        while found := await self._store.rows(
            dataset.project, dataset.id, after=after, limit=PAGE, most_bytes=PAGE_BYTES
        ):
            yield found
            after = found[-1].position

    async def delete(self, project: str, name: str, version: int | None = None) -> Sequence[Dataset]:
        """One version or all; which ones. Raises Missing."""
        deleted = await self._store.delete(project, name, version, at=self._clock.now())
        if not deleted:
            raise errors.missing(name, version)
        return deleted

    async def delete_row(self, dataset: Dataset, row_id: str) -> tuple[Dataset, bool]:
        """A new version without it; versions before keep it until they are deleted.

        Raises Missing (code dataset_row_missing), Invalid (code empty_dataset) when it was the last one.
        """
        if await self._store.row(dataset.project, dataset.id, row_id) is None:
            raise errors.row_missing(row_id)

        async def others() -> AsyncIterator[Example]:
            async for page in self.all_rows(dataset):
                for row in page:
                    if row.id != row_id:
                        yield _again(row)

        new = _derived(
            dataset, dataset.name, dataset.kind, {"without_row": row_id, "loaded": loaded_from(dataset)}
        )
        return await self.append_all(dataset.project, new, others())

    async def holding(self, project: str, row_id: str) -> Sequence[Dataset]:
        """The versions that have a row, newest first."""
        return await self._store.holding(project, row_id)

    async def sample(self, dataset: Dataset, *, count: int, seed: int) -> Sequence[Row]:
        """So many rows in their order: the same seed, the same rows (`choosing`).

        Fewer when there are fewer, or when they pass four megabytes of JSON.
        """
        ranks = await self._ranks(dataset, seed)
        wanted = await asyncio.to_thread(choosing.sampled, ranks, min(count, MOST_SAMPLED))
        return await self._store.rows_at(
            dataset.project, dataset.id, [index + 1 for index in wanted], most_bytes=PAGE_BYTES
        )

    async def split(
        self, dataset: Dataset, ratios: Mapping[str, float], *, seed: int
    ) -> Sequence[tuple[Dataset, bool]]:
        """A new dataset for each part, named {dataset}-{part}: the same seed, the same rows (`choosing`).

        Raises Invalid: bad_ratios, bad_name, too_few_rows.
        """
        choosing.check_ratios(ratios)
        ranks = await self._ranks(dataset, seed)
        parts = choosing.Parts(ranks, list(ratios.values()))
        used = await asyncio.to_thread(lambda: {parts.part_of(one) for one in ranks})
        if len(used) < len(ratios):
            raise Invalid(
                f"{dataset.name!r} has too few rows with different inputs for {len(ratios)} parts of these sizes.",
                code="too_few_rows",
            )
        async with Staging.begun(self._store, self.bounds, self._clock) as staging:
            writers = [
                await staging.writer(
                    dataset.project,
                    _derived(
                        dataset,
                        f"{dataset.name}-{part}",
                        _kind(part),
                        {"seed": seed, "part": part, "share": share},
                    ),
                )
                for part, share in ratios.items()
            ]
            async for page in self.all_rows(dataset):
                for row in page:
                    writer = writers[parts.part_of(ranks[row.position - 1])]
                    writer.take(_again(row), f"/rows/{row.position - 1}")
                    if writer.full:
                        await writer.flush()
            return await staging.publish(writers)

    async def _ranks(self, dataset: Dataset, seed: int) -> Sequence[int]:
        """Of each row, in order; eight bytes a row."""
        ranks = array("Q")
        async for page in self.inputs(dataset):
            ranks.extend(choosing.rank(seed, digest) for digest in page)
        return ranks

    async def inputs(self, dataset: Dataset) -> AsyncIterator[Sequence[str]]:
        """The `inputs_digest` of every row in order, some at a time. Raises Missing when it is deleted meanwhile."""
        after = rows = 0
        while page := await self._store.digests(dataset.project, dataset.id, after=after, limit=DIGESTS):
            yield [digest for _, digest in page]
            after, rows = page[-1][0], rows + len(page)
        if rows != dataset.rows:
            raise errors.missing(dataset.name, dataset.version)

    async def validate(
        self, dataset: Dataset, signature: Signature, *, after: int = 0, limit: int = 100
    ) -> Verdict:
        """How all rows behind a position fit; the first `limit` bad ones are listed."""
        checker = Checker(signature)
        verdict = Verdict(0, 0, 0, (), None)
        async for page in self.all_rows(dataset, after=after):
            verdict = await asyncio.to_thread(check_rows, checker, page, verdict, limit)
        return verdict

    async def statistics(self, dataset: Dataset) -> dict[str, Any]:
        """Sizes, fields, types, lengths, balance of labels, duplicates; see `statistics.report`."""
        seen = Statistics()
        async for page in self.all_rows(dataset):
            await asyncio.to_thread(seen.add, page)
        return report(seen, await self._store.counts(dataset.project, dataset.id))

    async def prune(self, *, older_than_id: str) -> int:
        """Deletes uploads that came to nothing, and what is left of deleted versions; returns how many."""
        return await self._store.prune(older_than_id=older_than_id)


def _examples(
    records: Iterator[Record | Problem], columns: Columns | None
) -> Iterator[tuple[str, Example | Sequence[Problem]]]:
    for one in records:
        if isinstance(one, Problem):
            yield "", [one]
        else:
            yield f"/{one.number}", example_in(one, columns)


def _telling(tell: Tell, file: BinaryIO) -> Callable[[int], None]:
    return lambda rows: tell(rows, file.tell())


def _again(row: Row) -> Example:
    return Example(row.inputs, row.outputs, row.metadata, row.provenance, row.id)


def _derived(dataset: Dataset, name: str, kind: DatasetKind, how: Mapping[str, Any]) -> NewDataset:
    origin = {"dataset": dataset.name, "version": dataset.version, "digest": dataset.digest, **how}
    return NewDataset(name, kind, dataset.description, dataset.metadata, origin)


def loaded_from(dataset: Dataset) -> Mapping[str, Any]:
    """Where its rows came from at first, however many have been deleted since."""
    first: Mapping[str, Any] = dataset.origin.get("loaded", dataset.origin)
    return first


def _kind(part: str) -> DatasetKind:
    return next((kind for kind in KINDS if kind == part), "custom")


def _position(cursor: str) -> int:
    match decode_cursor(cursor, 1):
        case [int() as position] if 0 <= position < 2**31:
            return position
    raise Invalid(
        "The cursor belongs to another list; leave it out to start from the first page.",
        code="bad_cursor",
        problems=[Problem("/cursor", "bad_cursor", "not a cursor of this list")],
    )
