"""Services that a first answer does without, each with what only it imports: see `kit.later`."""

from pathlib import Path
from typing import TYPE_CHECKING

from dspex.access.records import DEFAULT_PROJECT
from dspex.application.foundation import Foundation
from dspex.configuration.settings import Limits, Settings
from dspex.kit.clock import Clock
from dspex.storage.opening import Database

if TYPE_CHECKING:
    from dspex.datasets.service import Datasets
    from dspex.executions.background.service import Background
    from dspex.executions.batches.service import Batches
    from dspex.executions.feedback.service import Feedbacks
    from dspex.executions.pool_runner import PoolRunner
    from dspex.executions.predictions import Predictions
    from dspex.gateway.service import LanguageModelGateway


def datasets(database: Database, limits: Limits, clock: Clock) -> "Datasets":
    from dspex.datasets.records import Bounds
    from dspex.datasets.service import Datasets
    from dspex.providers.dataset_files.loader import FileLoader

    bounds = Bounds(limits.dataset_rows, limits.dataset_bytes, limits.dataset_row_bytes)
    return Datasets(database.datasets, FileLoader(), clock, bounds)


async def declare_datasets(foundation: Foundation, settings: Settings, directory: Path) -> None:
    """Those of the configuration file; see `application.declaring_datasets`."""
    if settings.datasets:
        from dspex.application.declaring_datasets import declare_datasets as declare

        own = datasets(foundation.database, settings.limits, foundation.clock)
        await declare(own, settings, DEFAULT_PROJECT, directory, foundation.audit)


def feedback(foundation: Foundation, datasets: "Datasets") -> "Feedbacks":
    from dspex.executions.feedback.service import Feedbacks

    database = foundation.database
    return Feedbacks(database.feedback, database.executions, database.programs, datasets, foundation.clock)


def background(foundation: Foundation, predictions: "Predictions") -> "Background":
    from dspex.executions.background.service import Background

    database = foundation.database
    return Background(
        predictions, foundation.jobs, database.background, database.executions, foundation.clock
    )


def batches(foundation: Foundation, settings: Settings, predictions: "Predictions") -> "Batches":
    from dspex.executions.batches.records import BatchBounds
    from dspex.executions.batches.service import Batches

    of_batches = settings.jobs.batch
    bounds = BatchBounds(of_batches.items, of_batches.concurrency)
    return Batches(predictions, foundation.jobs, foundation.database.batches, foundation.clock, bounds)


def pool_runner(foundation: Foundation, gateway: "LanguageModelGateway") -> "PoolRunner":
    from dspex.executions.pool_runner import PoolRunner
    from dspex.providers.language_models.spellings import Lm15Spellings

    return PoolRunner(foundation.pools, gateway, Lm15Spellings(), foundation.clock, foundation.facts)
