"""The rows that an optimization learns from and is measured by."""

from dspex.datasets.records import Dataset, Row
from dspex.datasets.service import Datasets
from dspex.kit.errors import Missing
from dspex.optimizations.records import Examples
from dspex.optimizations.rules import check_size, dataset_named


async def found(datasets: Datasets, project: str, text: str, pointer: str) -> Dataset:
    """The dataset that "name" or "name@2" means now. Raises Missing, Invalid."""
    return await datasets.get(project, *dataset_named(text, pointer))


def examples_of(dataset: Dataset) -> Examples:
    return Examples(dataset.id, dataset.name, dataset.version, dataset.digest)


async def all_rows(datasets: Datasets, dataset: Dataset) -> list[Row]:
    """Raises Invalid (code dataset_too_large)."""
    rows: list[Row] = []
    size = 0
    check_size(dataset.rows, 0)
    async for page in datasets.all_rows(dataset):
        rows += page
        size += sum(row.size for row in page)
        check_size(len(rows), size)
    return rows


async def rows_of(datasets: Datasets, project: str, examples: Examples) -> list[Row]:
    """Raises Missing (code dataset_missing) when the version is not there any more, or only in part."""
    dataset = await datasets.get(project, examples.name, examples.version)
    rows = await all_rows(datasets, dataset)
    if len(rows) != dataset.rows or dataset.digest != examples.digest:
        raise Missing(
            f"Version {examples.version} of dataset {examples.name!r} was deleted meanwhile.",
            code="dataset_missing",
        )
    return rows
