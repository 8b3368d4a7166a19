"""Writing a version: staged in short transactions, seen by nobody until it is whole."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from msgspec.structs import replace

from dspex.datasets import errors
from dspex.datasets.ports import DatasetStore
from dspex.datasets.records import Bounds, Dataset, Example, NewDataset, Row
from dspex.datasets.rules import Digest, Fields, check_name, placed, row_of
from dspex.kit.clock import Clock
from dspex.kit.errors import Problem
from dspex.kit.ids import new_id

# Rows, and bytes of their JSON, of one transaction: small enough that nobody waits long for its lock.
CHUNK, CHUNK_BYTES = 500, 500_000
# So many problems are told in one answer.
TOLD = 100


class Writer:
    """One version on its way. Rows are checked as they come; after the first bad one the others are only checked."""

    def __init__(self, store: DatasetStore, bounds: Bounds, dataset: Dataset) -> None:
        self._store = store
        self._bounds = bounds
        self.dataset = dataset
        self._digest = Digest()
        self._fields = Fields()
        self._chunk: list[Row] = []
        self._chunk_bytes = 0
        self.rows = 0
        self.bad_rows = 0
        self.problems: list[Problem] = []

    def take(self, example: Example, place: str) -> None:
        """Into the chunk. Raises Invalid (dataset_too_large, too_many_fields) for one too many."""
        made = row_of(example, self.rows + 1, self._bounds.row_bytes)
        if not isinstance(made, Row):
            self.refuse(placed(made, place))
            return
        self.rows += 1
        if self.rows > self._bounds.rows:
            raise errors.too_large(
                f"A dataset has at most {self._bounds.rows} rows (limits.dataset_rows); make two of it."
            )
        self._digest.add(made)
        self._fields.add(made)
        if not self.bad_rows:
            self._chunk.append(made)
            self._chunk_bytes += made.size

    def refuse(self, problems: Sequence[Problem]) -> None:
        """Counts a bad row."""
        self.bad_rows += 1
        self.problems += problems[: TOLD - len(self.problems)]
        self._chunk, self._chunk_bytes = [], 0

    @property
    def full(self) -> bool:
        return len(self._chunk) >= CHUNK or self._chunk_bytes >= CHUNK_BYTES

    async def flush(self) -> None:
        chunk, self._chunk, self._chunk_bytes = self._chunk, [], 0
        if chunk:
            await self._store.add(self.dataset.project, self.dataset.id, chunk)

    async def end(self) -> Dataset:
        """Everything is written; to be published. Raises Invalid (bad_dataset, empty_dataset)."""
        if self.bad_rows:
            raise errors.bad_dataset(self.bad_rows, self.problems)
        if not self.rows:
            raise errors.empty_dataset()
        await self.flush()
        return replace(
            self.dataset, digest=self._digest.hexdigest(), rows=self.rows, fields=self._fields.to_json()
        )


class Staging:
    """Some versions that come into being together, or not at all."""

    def __init__(self, store: DatasetStore, bounds: Bounds, clock: Clock) -> None:
        self._store = store
        self._bounds = bounds
        self._clock = clock
        self._staged: list[Dataset] = []

    @classmethod
    @asynccontextmanager
    async def begun(cls, store: DatasetStore, bounds: Bounds, clock: Clock) -> AsyncIterator[Self]:
        """What is staged and not published when it is left is dropped."""
        staging = cls(store, bounds, clock)
        try:
            yield staging
        finally:
            for dataset in staging._staged:
                await store.drop(dataset.project, [dataset.id])

    async def writer(self, project: str, new: NewDataset) -> Writer:
        dataset = Dataset(
            id=new_id(),
            project=project,
            name=check_name(new.name),
            version=0,
            kind=new.kind,
            digest="",
            rows=0,
            fields={},
            created_at=self._clock.now(),
            description=new.description,
            metadata=new.metadata,
            origin=new.origin,
        )
        await self._store.stage(dataset)
        self._staged.append(dataset)
        return Writer(self._store, self._bounds, dataset)

    async def publish(self, writers: Sequence[Writer]) -> Sequence[tuple[Dataset, bool]]:
        """As `DatasetStore.publish`. Raises Invalid as `Writer.end` does."""
        done = await self._store.publish([await writer.end() for writer in writers])
        kept = {dataset.id for dataset, _ in done}
        self._staged = [one for one in self._staged if one.id not in kept]
        return done


def until_full(writer: Writer, examples: Iterator[tuple[str, Example | Sequence[Problem]]]) -> bool:
    """Takes examples, each with its place, until there is a chunk to be written; False when there are no more."""
    for place, one in examples:
        if isinstance(one, Example):
            writer.take(one, place)
        else:
            writer.refuse(placed(one, place))
        if writer.full:
            return True
    return False
