"""Datasets of the configuration file: versions in the database, once for each content."""

import asyncio
import hashlib
from pathlib import Path

import structlog

from dspex.access.audit import Audit
from dspex.access.records import FILE, Author
from dspex.configuration.settings import DatasetEntry, Settings
from dspex.datasets.columns import columns_of
from dspex.datasets.records import NewDataset
from dspex.datasets.rules import format_of
from dspex.datasets.service import Datasets, loaded_from
from dspex.kit.errors import DspexError, Invalid, Missing

log = structlog.get_logger(__name__)


async def declare_datasets(
    datasets: Datasets, settings: Settings, project: str, directory: Path, audit: Audit
) -> None:
    """Loads the files that are not the latest version of their dataset already; nothing is ever deleted.

    A row that was deleted from what a file gave stays away until the file changes.

    Raises Invalid that names the dataset for a file that is not there, or has bad rows.
    """
    for entry in settings.datasets:
        try:
            await _declare(datasets, entry, project, directory / entry.path, audit)
        except DspexError as error:
            if error.kind != "invalid":
                raise
            raise Invalid(
                f"Dataset {entry.name!r} in the configuration: {error.message}",
                code=error.code,
                problems=error.problems,
            ) from error


async def _declare(datasets: Datasets, entry: DatasetEntry, project: str, path: Path, audit: Audit) -> None:
    form, columns = format_of(path.name), columns_of(entry.inputs, entry.outputs)
    try:
        with path.open("rb") as file:
            sha = await asyncio.to_thread(lambda: hashlib.file_digest(file, "sha256").hexdigest())
            # Of the file and how it is read: an unchanged one is not read row by row at every start.
            origin = {
                "source": "file",
                "path": entry.path,
                "sha256": sha,
                "inputs": entry.inputs,
                "outputs": entry.outputs,
            }
            try:
                latest = await datasets.get(project, entry.name)
            except Missing:
                latest = None
            if latest is not None and (latest.kind, loaded_from(latest)) == (entry.kind, origin):
                return
            file.seek(0)
            new = NewDataset(entry.name, entry.kind, entry.description, origin=origin)
            async with audit.operation(Author(project, FILE), "dataset.create", entry.name) as told:
                dataset, is_new = await datasets.load(project, new, file, form, columns)
                told |= {"version": dataset.version, "rows": dataset.rows}
    except OSError as error:
        raise Invalid(f"{path} can't be read: {error.strerror}.", code="bad_file") from None
    if is_new:
        log.info("dataset_loaded", dataset=dataset.name, version=dataset.version, rows=dataset.rows)
