"""Services that a first answer does without, each with what only it imports: see `kit.later`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dspex.access.records import DEFAULT_PROJECT
from dspex.configuration.settings import Limits, Settings
from dspex.kit.clock import Clock
from dspex.storage.opening import Database

if TYPE_CHECKING:
    from dspex.application.foundation import Foundation
    from dspex.datasets.service import Datasets
    from dspex.evaluations.service import Evaluations
    from dspex.executions.background.service import Background
    from dspex.executions.batches.service import Batches
    from dspex.executions.embedding import Embeddings
    from dspex.executions.feedback.service import Feedbacks
    from dspex.executions.pool_runner import PoolRunner
    from dspex.executions.predictions import Predictions
    from dspex.gateway.ports import Prices
    from dspex.gateway.service import LanguageModelGateway
    from dspex.jobs.ports import Changes, Handler
    from dspex.optimizations.ports import Optimizers
    from dspex.optimizations.service import Optimizations


def datasets(database: Database, limits: Limits, clock: Clock) -> "Datasets":
    from dspex.datasets.records import Bounds
    from dspex.datasets.service import Datasets
    from dspex.providers.dataset_files.loader import FileLoader

    bounds = Bounds(limits.dataset_rows, limits.dataset_bytes, limits.dataset_row_bytes)
    return Datasets(database.datasets, FileLoader(), clock, bounds)


async def declare_datasets(foundation: "Foundation", settings: Settings, directory: Path) -> None:
    """Those of the configuration file; see `application.declaring_datasets`."""
    if settings.datasets:
        from dspex.application.declaring_datasets import declare_datasets as declare

        own = datasets(foundation.database, settings.limits, foundation.clock)
        await declare(own, settings, DEFAULT_PROJECT, directory, foundation.audit)


def feedback(foundation: "Foundation", datasets: "Datasets") -> "Feedbacks":
    from dspex.executions.feedback.service import Feedbacks

    database = foundation.database
    return Feedbacks(database.feedback, database.executions, database.programs, datasets, foundation.clock)


def background(foundation: "Foundation", predictions: "Predictions") -> "Background":
    from dspex.executions.background.service import Background

    database = foundation.database
    return Background(
        predictions, foundation.jobs, database.background, database.executions, foundation.clock
    )


def batches(foundation: "Foundation", settings: Settings, predictions: "Predictions") -> "Batches":
    from dspex.executions.batches.records import BatchBounds
    from dspex.executions.batches.service import Batches

    of_batches = settings.jobs.batch
    bounds = BatchBounds(of_batches.items, of_batches.concurrency)
    return Batches(predictions, foundation.jobs, foundation.database.batches, foundation.clock, bounds)


def pool_runner(foundation: "Foundation", gateway: "LanguageModelGateway") -> "PoolRunner":
    from dspex.executions.pool_runner import PoolRunner
    from dspex.providers.language_models.spellings import Lm15Spellings

    return PoolRunner(foundation.pools, gateway, Lm15Spellings(), foundation.clock, foundation.facts)


def job_changes(database: Database) -> "Mapping[str, Changes]":
    """What goes with a change of a job, by its kind."""
    from dspex.evaluations.rules import KIND as EVALUATION
    from dspex.evaluations.running import EvaluationChanges
    from dspex.executions.background.rules import KIND as EXECUTION
    from dspex.executions.background.running import ExecutionChanges
    from dspex.optimizations.retrying import OptimizationChanges
    from dspex.optimizations.rules import KIND as OPTIMIZATION

    return {
        EXECUTION: ExecutionChanges(database.background, database.executions, database.jobs),
        EVALUATION: EvaluationChanges(database.evaluations, database.jobs),
        OPTIMIZATION: OptimizationChanges(database.optimizations, database.journal),
    }


def evaluations(
    foundation: "Foundation",
    settings: Settings,
    gateway: "LanguageModelGateway",
    prices: "Prices",
    predictions: "Predictions",
    embeddings: "Embeddings",
    datasets: "Datasets",
) -> "Evaluations":
    from dspex.application.evaluating import Metrics
    from dspex.evaluations.python_scoring import PythonMetrics
    from dspex.evaluations.service import Evaluations
    from dspex.providers.language_models.spellings import Lm15Spellings

    clock, database = foundation.clock, foundation.database
    python = PythonMetrics(foundation.pools, gateway, Lm15Spellings(), clock, foundation.node)
    return Evaluations(
        predictions,
        datasets,
        foundation.jobs,
        database.evaluations,
        clock,
        settings.jobs.evaluation.concurrency,
        Metrics(settings.models, prices, predictions, embeddings, python),
    )


def optimizations(
    foundation: "Foundation",
    settings: Settings,
    datasets: "Datasets",
    optimizers: "Optimizers",
    gateway: "LanguageModelGateway",
    prices: "Prices",
) -> "Optimizations":
    from dspex.application.optimizing import optimizations_on

    return optimizations_on(foundation, settings, datasets, optimizers, gateway, prices)


def optimization_handler(
    foundation: "Foundation",
    settings: Settings,
    datasets: "Datasets",
    optimizers: "Optimizers",
    gateway: "LanguageModelGateway",
    prices: "Prices",
) -> "Handler":
    from dspex.application.optimizing import optimization_handler

    return optimization_handler(foundation, settings, datasets, optimizers, gateway, prices)
