"""How optimizations are put together, for the node that takes them and for the worker that runs them."""

from dspex.access.records import Principal
from dspex.application.foundation import Foundation
from dspex.configuration.models import ModelSettings
from dspex.configuration.pools import GENERAL
from dspex.configuration.settings import Settings
from dspex.datasets.service import Datasets
from dspex.evaluations.metrics.records import MetricSpec
from dspex.evaluations.python_scoring import PythonMetrics
from dspex.gateway.ports import FineTuningClient, Prices
from dspex.gateway.service import LanguageModelGateway
from dspex.optimizations.planning import Planner
from dspex.optimizations.ports import Optimizers
from dspex.optimizations.results import Results
from dspex.optimizations.running import OptimizationHandler, Parts
from dspex.optimizations.service import Optimizations
from dspex.programs.definitions import choose_model
from dspex.providers.language_models.registry import fine_tuner_of
from dspex.providers.language_models.spellings import Lm15Spellings
from dspex.providers.memory.kept_optimizations import KeptOptimizations
from dspex.providers.python_code import code_digest


def optimizations_on(
    foundation: Foundation,
    settings: Settings,
    datasets: Datasets,
    optimizers: Optimizers,
    gateway: LanguageModelGateway,
    prices: Prices,
) -> Optimizations:
    python = PythonMetrics(foundation.pools, gateway, Lm15Spellings(), foundation.clock, foundation.node)

    async def check_metric(metric: MetricSpec, principal: Principal) -> None:
        if metric.reference is not None:
            await python.check(metric, principal, choose_model(settings.models, None))

    planner = Planner(
        foundation.programs,
        datasets,
        optimizers,
        gateway,
        prices,
        lambda references: code_digest(references, settings.code_roots),
        frozenset({GENERAL, *settings.pools}),
        check_metric,
    )
    database = foundation.database
    results = Results(foundation.programs, foundation.audit)
    return Optimizations(
        planner,
        database.optimizations,
        foundation.jobs,
        results,
        database.executions,
        prices,
        foundation.clock,
        KeptOptimizations(),
    )


def optimization_handler(
    foundation: Foundation,
    settings: Settings,
    datasets: Datasets,
    optimizers: Optimizers,
    gateway: LanguageModelGateway,
    prices: Prices,
) -> OptimizationHandler:
    database = foundation.database
    return OptimizationHandler(
        Parts(
            optimizers,
            gateway,
            Lm15Spellings(),
            prices,
            foundation.programs,
            datasets,
            database.optimizations,
            database.journal,
            database.recorder,
            Results(foundation.programs, foundation.audit),
            foundation.keys,
            foundation.clock,
            foundation.facts,
            foundation.node,
            settings.cache.policy,
            settings.jobs.optimization.timeout_s,
            settings.limits.output_bytes,
            lambda alias: fine_tuner_of(gateway.settings_of(alias), _simulator),
        )
    )


def _simulator(_: ModelSettings) -> FineTuningClient:
    # Imported here: a node with a real model never loads the simulator.
    from dspex.providers.language_models.simulator.client import SimulatorClient

    return SimulatorClient()
