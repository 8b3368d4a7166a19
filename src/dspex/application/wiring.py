"""The composition root: the only place that knows which class stands behind which port."""

import os
import platform
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from dspex.application.maintenance import DEAD_AFTER, Maintenance
from dspex.configuration.models import ModelSettings
from dspex.configuration.settings import Settings
from dspex.executions.catalog import Catalog
from dspex.executions.idempotency import Idempotency
from dspex.executions.predictions import Predictions
from dspex.executions.service import Bounds, ExecutionService
from dspex.gateway.ports import LanguageModelClient
from dspex.gateway.service import LanguageModelGateway
from dspex.interfaces.shared.services import Check, Services
from dspex.kit.clock import SystemClock
from dspex.kit.facts import Facts
from dspex.programs.service import ProgramService
from dspex.providers.compiler import SubprocessCompiler
from dspex.providers.language_models.registry import build_clients
from dspex.providers.prices import GenaiPrices
from dspex.signatures.service import SignatureService
from dspex.storage.opening import open_database

# How long a request without a program may wait for its compilation besides its own time limit.
COMPILING = timedelta(minutes=5)


@asynccontextmanager
async def open_services(settings: Settings, *, serving: bool = False) -> AsyncIterator[Services]:
    """One node's services, closed in reverse order at the end: the recorder drains before the database goes.

    `serving` adds what only a long-lived node does: heartbeats, looking for orphans, retention.
    """
    clock, facts = SystemClock(), Facts()
    node = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        clients = build_clients(settings.models, _simulator)
        prices = GenaiPrices(settings.models.registry)
        gateway = LanguageModelGateway(clients, settings.models.registry, prices, clock, facts)
        stack.push_async_callback(gateway.aclose)
        catalog = Catalog(database.programs, clock, facts)
        programs = ProgramService(database.programs, SubprocessCompiler(), clock, facts)
        bounds = Bounds(
            settings.limits.input_bytes,
            settings.limits.output_bytes,
            settings.limits.timeout_s,
            settings.limits.in_flight,
        )
        signatures = SignatureService(database.signatures, clock)
        executions = ExecutionService(gateway, database.recorder, clock, facts, bounds, node)
        checks = [Check("database", database.ping)]
        if serving:
            maintenance = Maintenance(database.executions, database.nodes, settings.retention, clock, node)
            checks.append(Check("heartbeat", maintenance.check))
            await stack.enter_async_context(maintenance.running())
        yield Services(
            settings=settings,
            clock=clock,
            started_at=clock.now(),
            catalog=catalog,
            predictions=Predictions(catalog, programs, signatures, executions, settings.models),
            idempotency=Idempotency(
                database.executions,
                database.nodes,
                clock,
                node,
                dead_after=DEAD_AFTER,
                stale_after=timedelta(seconds=settings.limits.timeout_s) + COMPILING,
            ),
            executions=database.executions,
            compiled=database.programs,
            programs=programs,
            signatures=signatures,
            checks=tuple(checks),
        )


def _simulator(_: ModelSettings) -> LanguageModelClient:
    # Imported here: a node with a real model never loads the simulator.
    from dspex.providers.language_models.simulator.client import SimulatorClient

    return SimulatorClient()
