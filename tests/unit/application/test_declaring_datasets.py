"""Datasets that a configuration file declares, over the starts of a service."""

from pathlib import Path

from dspex.access.audit import Audit
from dspex.application.declaring_datasets import declare_datasets
from dspex.configuration.settings import DatasetEntry, Settings
from dspex.datasets.records import Bounds
from dspex.datasets.service import Datasets
from dspex.kit.clock import SystemClock
from dspex.providers.dataset_files.loader import FileLoader
from dspex.providers.memory.access import MemoryAudit
from dspex.providers.memory.datasets import MemoryDatasets


async def test_a_deleted_row_stays_away_until_the_file_changes(tmp_path: Path) -> None:
    clock = SystemClock()
    datasets = Datasets(MemoryDatasets(), FileLoader(), clock, Bounds(100, 10**6, 10_000))
    settings = Settings(datasets=(DatasetEntry(name="rows", path="rows.jsonl"),))
    file = tmp_path / "rows.jsonl"
    lines = [f'{{"inputs": {{"n": {number}}}, "outputs": {{}}}}\n' for number in range(4)]

    async def start() -> tuple[int | None, int]:
        await declare_datasets(datasets, settings, "default", tmp_path, Audit(MemoryAudit(), clock))
        found = await datasets.get("default", "rows")
        return found.version, found.rows

    file.write_text("".join(lines[:3]))
    assert await start() == (1, 3)
    for left in (2, 1):
        dataset = await datasets.get("default", "rows")
        row = (await datasets.rows(dataset, limit=1, cursor=None)).data[0]
        await datasets.delete_row(dataset, row.id)
        # Who wants a row gone deletes the versions that still have it.
        await datasets.delete("default", "rows", dataset.version)
        assert (await start())[1] == left
    file.write_text("".join(lines))
    assert await start() == (4, 4)
