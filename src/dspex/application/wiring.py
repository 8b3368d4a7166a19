"""The composition root: which class stands behind which port, by the settings of the moment."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dspex.application import seldom
from dspex.application.foundation import Foundation, open_foundation
from dspex.application.lazy_optimizers import LazyOptimizers
from dspex.configuration.models import ModelSettings
from dspex.configuration.settings import Settings
from dspex.executions.caching import PredictionCaching
from dspex.executions.embedding import Embeddings
from dspex.executions.predictions import Predictions
from dspex.executions.reading import ReplyReader
from dspex.executions.requests import Bounds
from dspex.executions.service import ExecutionService
from dspex.gateway.service import LanguageModelGateway
from dspex.interfaces.shared.services import Services
from dspex.kit.later import later
from dspex.providers.language_models.registry import build_clients, build_embedders
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
        later(lambda: seldom.pool_runner(foundation, gateway)),
    )
    predictions = Predictions(foundation.catalog, foundation.adhoc, foundation.signatures, executions, models)
    embeddings = Embeddings(
        gateway, database.recorder, clock, facts, bounds, foundation.node, settings.cache.policy
    )
    datasets = later(lambda: seldom.datasets(database, limits, clock))
    optimizers = LazyOptimizers(settings, clock)
    optimizing = (foundation, settings, datasets, optimizers, gateway, prices)
    foundation.in_flight.append(executions_in_flight := lambda: executions.in_flight + embeddings.in_flight)
    try:
        yield Services(
            settings=settings,
            clock=clock,
            started_at=foundation.started_at,
            catalog=foundation.catalog,
            predictions=predictions,
            background=later(lambda: seldom.background(foundation, predictions)),
            batches=later(lambda: seldom.batches(foundation, settings, predictions)),
            datasets=datasets,
            feedback=later(lambda: seldom.feedback(foundation, datasets)),
            evaluations=later(
                lambda: seldom.evaluations(
                    foundation, settings, gateway, prices, predictions, embeddings, datasets
                )
            ),
            optimizations=later(lambda: seldom.optimizations(*optimizing)),
            optimizing=later(lambda: seldom.optimization_handler(*optimizing)),
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
            pools=foundation.pools_everywhere,
            inspector=foundation.pools,
            python_signatures=foundation.python_signatures,
            streams=foundation.streams,
            elsewhere=foundation.elsewhere,
        )
    finally:
        foundation.in_flight.remove(executions_in_flight)
        await optimizers.aclose()
        await gateway.aclose()


def _simulator(_: ModelSettings) -> "SimulatorClient":
    # Imported here: a node with a real model never loads the simulator.
    from dspex.providers.language_models.simulator.client import SimulatorClient

    return SimulatorClient()
