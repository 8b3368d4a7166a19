"""The composition root: which class stands behind which port, by the settings of the moment."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dspex.application.declaring_datasets import datasets_on
from dspex.application.foundation import Foundation, open_foundation
from dspex.configuration.models import ModelSettings
from dspex.configuration.settings import Settings
from dspex.executions.background.service import Background
from dspex.executions.batches.records import BatchBounds
from dspex.executions.batches.service import Batches
from dspex.executions.caching import PredictionCaching
from dspex.executions.embedding import Embeddings
from dspex.executions.feedback.service import Feedbacks
from dspex.executions.pool_runner import PoolRunner
from dspex.executions.predictions import Predictions
from dspex.executions.reading import ReplyReader
from dspex.executions.requests import Bounds
from dspex.executions.service import ExecutionService
from dspex.gateway.service import LanguageModelGateway
from dspex.interfaces.shared.services import Services
from dspex.providers.language_models.registry import build_clients, build_embedders
from dspex.providers.language_models.spellings import Lm15Spellings
from dspex.providers.prices import GenaiPrices
from dspex.providers.python_code import code_digest

if TYPE_CHECKING:
    from dspex.providers.language_models.simulator.client import SimulatorClient


@asynccontextmanager
async def open_services(settings: Settings, *, serving: bool = False) -> AsyncIterator[Services]:
    """One node's services with their own foundation; see `open_foundation` for `serving`."""
    async with (
        open_foundation(settings, serving=serving) as foundation,
        services_on(foundation, settings) as services,
    ):
        yield services


@asynccontextmanager
async def services_on(foundation: Foundation, settings: Settings) -> AsyncIterator[Services]:
    """The services that these settings make. Leaving it closes the connections to the models."""
    clock, facts, database = foundation.clock, foundation.facts, foundation.database
    models, limits = settings.models, settings.limits
    prices = GenaiPrices(models.registry)
    gateway = LanguageModelGateway(
        build_clients(models, _simulator),
        models.registry,
        prices,
        clock,
        facts,
        foundation.gateway.steps(settings, prices),
        build_embedders(models, _simulator),
        # A model is not paid for what can't be recorded.
        foundation.gateway.embedding_steps(settings, prices, database.recorder.check),
    )
    bounds = Bounds(limits.input_bytes, limits.output_bytes, limits.timeout_s, limits.in_flight)
    answers = foundation.gateway.answers
    executions = ExecutionService(
        gateway,
        database.recorder,
        clock,
        facts,
        bounds,
        foundation.node,
        ReplyReader(foundation.reading, clock, limits.output_bytes),
        PredictionCaching(answers.predictions, answers.replies, clock),
        settings.cache.policy,
        PoolRunner(foundation.pools, gateway, Lm15Spellings(), clock, facts),
    )
    predictions = Predictions(foundation.catalog, foundation.adhoc, foundation.signatures, executions, models)
    batches = settings.jobs.batch
    embeddings = Embeddings(
        gateway, database.recorder, clock, facts, bounds, foundation.node, settings.cache.policy
    )
    datasets = datasets_on(database, limits, clock)
    foundation.in_flight.append(executions_in_flight := lambda: executions.in_flight + embeddings.in_flight)
    try:
        yield Services(
            settings=settings,
            clock=clock,
            started_at=foundation.started_at,
            catalog=foundation.catalog,
            predictions=predictions,
            background=Background(
                predictions, foundation.jobs, database.background, database.executions, clock
            ),
            batches=Batches(
                predictions,
                foundation.jobs,
                database.batches,
                clock,
                BatchBounds(batches.items, batches.concurrency),
            ),
            datasets=datasets,
            feedback=Feedbacks(database.feedback, database.executions, database.programs, datasets, clock),
            jobs=foundation.jobs,
            embeddings=embeddings,
            idempotency=foundation.idempotency,
            executions=database.executions,
            budgets=database.budgets,
            compiled=database.programs,
            programs=foundation.programs,
            signatures=foundation.signatures,
            signals=foundation.signals,
            nodes=database.nodes,
            keys=foundation.keys,
            authenticator=foundation.authenticator,
            audit=foundation.audit,
            checks=foundation.checks,
            caches=answers.caches,
            breakers=foundation.gateway.breakers,
            lanes=foundation.gateway.lanes,
            analytics=database.analytics,
            observed=foundation.observed,
            code=lambda references: code_digest(references, settings.code_roots),
            pools=foundation.pools,
            inspector=foundation.pools,
            python_signatures=foundation.python_signatures,
            streams=foundation.streams,
        )
    finally:
        foundation.in_flight.remove(executions_in_flight)
        await gateway.aclose()


def _simulator(_: ModelSettings) -> "SimulatorClient":
    # Imported here: a node with a real model never loads the simulator.
    from dspex.providers.language_models.simulator.client import SimulatorClient

    return SimulatorClient()
