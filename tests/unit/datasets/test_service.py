"""What is left when making a dataset fails half way."""

import io
import json
from collections.abc import AsyncIterator

import pytest

from dspex.datasets.records import Bounds, Example, NewDataset
from dspex.datasets.service import AT_ONCE, Datasets
from dspex.kit.clock import SystemClock
from dspex.kit.errors import DspexError, Exhausted, Invalid
from dspex.providers.dataset_files.loader import FileLoader
from dspex.providers.memory.datasets import MemoryDatasets


def made(rows: int = 10_000) -> tuple[Datasets, MemoryDatasets]:
    store = MemoryDatasets()
    return Datasets(store, FileLoader(), SystemClock(), Bounds(rows, 10**9, 10_000)), store


def lines(count: int, last: bytes = b"") -> io.BytesIO:
    return io.BytesIO(
        b"".join(json.dumps({"inputs": {"n": n}}).encode() + b"\n" for n in range(count)) + last
    )


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (lines(2000, b"bad\n"), "bad_dataset"),
        (lines(10_001), "dataset_too_large"),
        (lines(0), "empty_dataset"),
    ],
)
async def test_a_file_that_fails_at_its_end_leaves_nothing(file: io.BytesIO, code: str) -> None:
    datasets, store = made()
    with pytest.raises(Invalid) as refused:
        await datasets.load("p", NewDataset("d"), file, "jsonl", None)
    assert refused.value.code == code
    assert not store._rows and not store._staged


async def test_progress_is_told_to_the_end() -> None:
    datasets, _ = made()
    told: list[tuple[int, int]] = []
    file = lines(1200)
    await datasets.load("p", NewDataset("d"), file, "jsonl", None, tell=lambda *now: told.append(now))
    assert told == sorted(told) and len(told) > 2
    assert told[-1] == (1200, len(file.getbuffer()))


async def test_rows_that_stop_coming_leave_nothing() -> None:
    datasets, store = made()

    async def examples() -> AsyncIterator[Example]:
        for number in range(700):
            yield Example({"n": number}, {})
        raise DspexError("away")

    with pytest.raises(DspexError, match="away"):
        await datasets.append_all("p", NewDataset("d"), examples())
    assert not store._rows and not store._staged


async def test_the_same_rows_again_leave_one_version() -> None:
    datasets, store = made()
    first, is_new = await datasets.load("p", NewDataset("d"), lines(600), "jsonl", None)
    assert is_new
    assert await datasets.load("p", NewDataset("d"), lines(600), "jsonl", None) == (first, False)
    assert list(store._rows) == [("p", first.id)] and not store._staged


async def test_so_many_files_are_loaded_at_once_and_no_more() -> None:
    datasets, _ = made()
    with datasets.loading(), datasets.loading():
        assert AT_ONCE == 2
        with pytest.raises(Exhausted) as refused, datasets.loading():
            pass
        assert (refused.value.code, refused.value.retry_after) == ("datasets_busy", 5)
    with datasets.loading():
        pass
