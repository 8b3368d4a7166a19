"""What datasets need from outside."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import BinaryIO, Protocol

from dspex.datasets.columns import Record
from dspex.datasets.records import Counts, Dataset, DatasetKind, FileFormat, Row
from dspex.kit.errors import Problem
from dspex.kit.paging import Page


class DatasetReader(Protocol):
    async def get(self, project: str, name: str, version: int) -> Dataset | None: ...

    async def latest(self, project: str, name: str) -> Dataset | None:
        """The highest version that is not deleted."""
        ...

    async def list(
        self, project: str, *, kind: DatasetKind | None, limit: int, cursor: str | None
    ) -> Page[Dataset]:
        """The latest version of each name, by name; with a `kind`, of those whose latest version is of it."""
        ...

    async def versions(self, project: str, name: str, *, limit: int, cursor: str | None) -> Page[Dataset]:
        """Newest number first."""
        ...

    async def rows(
        self, project: str, dataset_id: str, *, after: int, limit: int, most_bytes: int
    ) -> Sequence[Row]:
        """Rows behind a position, in order; fewer than `limit` where they pass `most_bytes` of JSON, one at least."""
        ...

    async def rows_at(
        self, project: str, dataset_id: str, positions: Sequence[int], *, most_bytes: int
    ) -> Sequence[Row]:
        """Rows at these positions, in order; the first ones where they pass `most_bytes`, one at least."""
        ...

    async def row(self, project: str, dataset_id: str, row_id: str) -> Row | None: ...

    async def digests(
        self, project: str, dataset_id: str, *, after: int, limit: int
    ) -> Sequence[tuple[int, str]]:
        """Position and inputs_digest of rows behind a position, in order."""
        ...

    async def counts(self, project: str, dataset_id: str) -> Counts: ...

    async def holding(self, project: str, row_id: str) -> Sequence[Dataset]:
        """The versions that have this row, newest first."""
        ...


class DatasetStore(DatasetReader, Protocol):
    """A version is staged, filled, then published; nobody sees it before that."""

    async def stage(self, dataset: Dataset) -> None: ...

    async def add(self, project: str, dataset_id: str, rows: Sequence[Row]) -> None:
        """All or none, committed on return: short transactions, so that nobody waits long.

        Raises Conflict (code dataset_upload_lost) when it is staged no more.
        """
        ...

    async def publish(self, datasets: Sequence[Dataset]) -> Sequence[tuple[Dataset, bool]]:
        """Gives staged datasets their versions, all in one transaction; True for each that is new.

        One whose name has a version with the same kind and digest already is that one, and what was staged is to be
        dropped. Raises Conflict (code dataset_upload_lost) when one is staged no more.
        """
        ...

    async def drop(self, project: str, dataset_ids: Sequence[str]) -> None:
        """Deletes what was staged, rows first, in batches."""
        ...

    async def delete(
        self, project: str, name: str, version: int | None, *, at: datetime
    ) -> Sequence[Dataset]:
        """Hides one version, or all, in one transaction, then deletes their rows in batches; which ones."""
        ...

    async def prune(self, *, older_than_id: str) -> int:
        """Deletes what was staged under an id before that one (ids sort by time), and rows of deleted versions."""
        ...


class Loader(Protocol):
    """Reads files."""

    def check(self, form: FileFormat) -> None:
        """Raises Unavailable (code data_extra_missing) for a format that needs what is not installed."""
        ...

    def records(self, file: BinaryIO, form: FileFormat, longest: int) -> Iterator[Record | Problem]:
        """One at a time, from the first byte. A record that can't be read is a Problem, its pointer beginning with

        its number. Raises Invalid (code bad_file) where reading can't go on. No record is longer than `longest` bytes.
        """
        ...
