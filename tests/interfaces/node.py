"""A whole node over memory stores, and ways to call it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import uvicorn
from msgspec.structs import replace

from dspex.access.audit import Audit
from dspex.access.authentication import Authenticator
from dspex.access.service import Keys
from dspex.application.evaluating import Metrics as EvaluationMetrics
from dspex.application.lazy_pools import LazyPools
from dspex.application.pools_everywhere import PoolsEverywhere
from dspex.configuration.settings import Settings
from dspex.datasets.records import Bounds as DatasetBounds
from dspex.datasets.service import Datasets
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import Score
from dspex.evaluations.ports import MetricPools, MetricTask
from dspex.evaluations.python_scoring import PythonMetrics
from dspex.evaluations.rules import KIND as EVALUATION
from dspex.evaluations.running import EvaluationChanges
from dspex.evaluations.service import Evaluations
from dspex.executions.background.rules import KIND as EXECUTION
from dspex.executions.background.running import ExecutionChanges
from dspex.executions.background.service import Background
from dspex.executions.batches.records import BatchBounds
from dspex.executions.batches.service import Batches
from dspex.executions.caching import PredictionCaching
from dspex.executions.catalog import Catalog
from dspex.executions.elsewhere import Elsewhere
from dspex.executions.embedding import Embeddings
from dspex.executions.feedback.service import Feedbacks
from dspex.executions.idempotency import Idempotency
from dspex.executions.ports import PoolHost
from dspex.executions.predictions import Predictions
from dspex.executions.reading import ReplyReader
from dspex.executions.requests import Bounds
from dspex.executions.service import ExecutionService
from dspex.executions.streams import FOLLOWED, Streams
from dspex.gateway.breakers import Breakers
from dspex.gateway.ports import Prices
from dspex.gateway.records import CACHED
from dspex.gateway.service import LanguageModelGateway
from dspex.gateway.steps.admitting import Admitting
from dspex.gateway.steps.breaking import Breaking
from dspex.gateway.steps.caching import Caching
from dspex.gateway.steps.embedding import Vectors
from dspex.gateway.steps.lanes import Lanes
from dspex.gateway.steps.single_flight import SingleFlight
from dspex.interfaces.rest.app import RestApplication, create_application
from dspex.interfaces.shared.services import Check, Services
from dspex.jobs.ports import Changes, Run
from dspex.jobs.records import Outcome
from dspex.jobs.service import Jobs
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Unavailable
from dspex.kit.facts import Facts
from dspex.kit.signals import LocalSignals, Signals
from dspex.observability.alerts import Alerts
from dspex.observability.metrics import Metrics
from dspex.observability.observed import Observed
from dspex.observability.tracing import Tracer
from dspex.optimizations.planning import Planner
from dspex.optimizations.ports import Optimizers
from dspex.optimizations.results import Results
from dspex.optimizations.retrying import OptimizationChanges
from dspex.optimizations.rules import KIND as OPTIMIZATION
from dspex.optimizations.service import Optimizations
from dspex.programs.adhoc import AdhocCompiling
from dspex.programs.ports import Compiled, Compiler, Refused, SignatureReader
from dspex.programs.python_signatures import PythonSignatures
from dspex.programs.records import Definition
from dspex.programs.service import ProgramService
from dspex.providers.dataset_files.loader import FileLoader
from dspex.providers.language_models.simulator.client import SimulatorClient
from dspex.providers.language_models.spellings import Lm15Spellings
from dspex.providers.memory.access import MemoryAudit, MemoryKeys
from dspex.providers.memory.alerts import MemoryAlertBoard
from dspex.providers.memory.analytics import MemoryAnalytics
from dspex.providers.memory.breakers import MemoryBreakers
from dspex.providers.memory.budgets import MemoryBudgets
from dspex.providers.memory.datasets import MemoryDatasets
from dspex.providers.memory.evaluations import MemoryEvaluations
from dspex.providers.memory.executions import MemoryExecutions, MemoryNodes
from dspex.providers.memory.feedback import MemoryFeedback
from dspex.providers.memory.jobs import MemoryBackground, MemoryBatches, MemoryJobs
from dspex.providers.memory.kept_optimizations import KeptOptimizations
from dspex.providers.memory.optimizations import MemoryJournal, MemoryOptimizations
from dspex.providers.memory.programs import MemoryPrograms
from dspex.providers.memory.signatures import MemorySignatures
from dspex.providers.python_code import code_digest
from dspex.signatures.service import SignatureService
from tests.caching import caches_in_memory
from tests.interfaces.stores import Behind, Switch
from tests.plugins.reading import ReadsHere
from tests.unit.optimizations.house import Scripted

NODE = "node-under-test"
BASE = "http://127.0.0.1"


class NoCompiler:
    async def compile(self, definitions: Sequence[Definition]) -> list[Compiled | Refused]:
        raise Unavailable("DSPy is not installed here.", code="no_compiler")


class Refusing:
    async def compile(self, definitions: Sequence[Definition]) -> list[Compiled | Refused]:
        return [Refused("this signature is too strange") for _ in definitions]


class NoPrices:
    async def cost(self, model: str, usage: Any, service_tier: str | None = None) -> float | None:
        return None


class RunsNothing:
    async def run(self, run: Run) -> Outcome:
        raise Unavailable("There is no worker here.", code="no_pool")


class NoWorkers:
    async def score(self, task: MetricTask, host: PoolHost) -> Sequence[Score | MetricFailed]:
        raise Unavailable("There is no worker here.", code="no_pool")


@dataclass
class TestNode:
    __test__ = False

    settings: Settings = field(default_factory=lambda: Settings(log_level="error"))
    compiler: Compiler = field(default_factory=NoCompiler)
    checks: tuple[Check, ...] | None = None
    signals: Signals = field(default_factory=LocalSignals)
    keys: MemoryKeys = field(default_factory=MemoryKeys)
    signature_reader: SignatureReader | None = None
    optimizers: Optimizers = field(default_factory=Scripted)
    metric_pools: MetricPools | None = None
    prices: Prices = field(default_factory=NoPrices)

    def __post_init__(self) -> None:
        clock, facts, self.switch = SystemClock(), Facts(), Switch()
        self.alerts = Alerts(self.settings.alerts, facts, clock, NODE, MemoryAlertBoard())
        self.facts = facts
        self.nodes = MemoryNodes()
        self.executions = MemoryExecutions(self.nodes)
        self.budgets = MemoryBudgets(self.nodes, self.executions)
        self.job_store = MemoryJobs()
        stored_programs: Any = Behind(self.switch, MemoryPrograms(self.job_store))
        stored_executions: Any = Behind(self.switch, self.executions)
        stored_nodes: Any = Behind(self.switch, self.nodes)
        catalog = Catalog(stored_programs, clock, facts)
        programs = ProgramService(stored_programs, self.compiler, clock, facts)
        adhoc = AdhocCompiling(stored_programs, self.compiler, clock)
        signatures = SignatureService(MemorySignatures(), clock)
        breakers, lanes = Breakers(MemoryBreakers(clock), LocalSignals(), clock, facts), Lanes(clock)
        breaking, self.embedder = Breaking(breakers), SimulatorClient()
        self.cached = caches_in_memory(self.settings.cache, clock, facts)
        gateway = LanguageModelGateway(
            {name: SimulatorClient() for name in self.settings.models.registry},
            self.settings.models.registry,
            self.prices,
            clock,
            facts,
            (Caching(self.cached.replies, clock), flights := SingleFlight(clock), breaking, lanes),
            dict.fromkeys(self.settings.models.registry, self.embedder),
            (
                Vectors(self.cached.vectors, clock),
                Admitting(self.switch.check),
                flights,
                breaking,
                lanes,
            ),
        )
        background = MemoryBackground(self.job_store, self.executions)
        stored_jobs: Any = Behind(self.switch, self.job_store)
        stored_background: Any = Behind(self.switch, background)
        self.batches = MemoryBatches(self.job_store, self.executions)
        stored_batches: Any = Behind(self.switch, self.batches)
        limits = self.settings.limits
        bounds = Bounds(limits.input_bytes, limits.output_bytes, limits.timeout_s, limits.in_flight)
        caching = PredictionCaching(self.cached.predictions, self.cached.replies, clock)
        reader = ReplyReader(ReadsHere(), clock, limits.output_bytes)
        running = ExecutionService(gateway, stored_executions, clock, facts, bounds, NODE, reader, caching)
        self.audit_log = MemoryAudit()
        self.optimizations = MemoryOptimizations(self.job_store, journal := MemoryJournal())
        stored_optimizations: Any = Behind(self.switch, self.optimizations)
        stored_keys: Any = Behind(self.switch, self.keys)
        stored_audit: Any = Behind(self.switch, self.audit_log)
        self.evaluations = MemoryEvaluations(self.job_store, self.executions)
        stored_evaluations: Any = Behind(self.switch, self.evaluations)
        self.job_changes: dict[str, Changes] = {
            EXECUTION: ExecutionChanges(stored_background, stored_executions, stored_jobs),
            EVALUATION: EvaluationChanges(stored_evaluations, stored_jobs),
            OPTIMIZATION: OptimizationChanges(stored_optimizations, journal),
        }
        jobs = Jobs(stored_jobs, self.signals, clock, self.job_changes)
        self.idempotency = Idempotency(
            stored_executions,
            stored_nodes,
            clock,
            NODE,
            dead_after=timedelta(seconds=20),
            in_background=jobs.is_open,
        )
        predictions = Predictions(catalog, adhoc, signatures, running, self.settings.models)
        bounds_of_batches = BatchBounds(self.settings.jobs.batch.items, self.settings.jobs.batch.concurrency)
        self.datasets: Any = Behind(self.switch, MemoryDatasets())
        stored_feedback: Any = Behind(self.switch, MemoryFeedback(self.executions))
        bounds_of_datasets = DatasetBounds(
            limits.dataset_rows, limits.dataset_bytes, limits.dataset_row_bytes
        )
        datasets = Datasets(self.datasets, FileLoader(), clock, bounds_of_datasets)
        pools = LazyPools(self.settings.pools, self.settings.code_roots, clock, share=1)
        embeddings = Embeddings(gateway, stored_executions, clock, facts, bounds, NODE, CACHED)
        metrics = EvaluationMetrics(
            self.settings.models,
            self.prices,
            predictions,
            embeddings,
            PythonMetrics(self.metric_pools or NoWorkers(), gateway, Lm15Spellings(), clock, NODE),
        )
        streams = Streams(clock)
        self.signals.on(FOLLOWED, streams.followed)
        self.services = Services(
            settings=self.settings,
            clock=clock,
            started_at=clock.now(),
            catalog=catalog,
            predictions=predictions,
            embeddings=embeddings,
            evaluations=Evaluations(
                predictions,
                datasets,
                jobs,
                stored_evaluations,
                clock,
                self.settings.jobs.evaluation.concurrency,
                metrics,
            ),
            background=Background(predictions, jobs, stored_background, stored_executions, clock),
            batches=Batches(predictions, jobs, stored_batches, clock, bounds_of_batches),
            datasets=datasets,
            feedback=Feedbacks(stored_feedback, stored_executions, stored_programs, datasets, clock),
            optimizations=Optimizations(
                Planner(
                    programs,
                    datasets,
                    self.optimizers,
                    gateway,
                    self.prices,
                    lambda references: code_digest(references, self.settings.code_roots),
                    frozenset({"general"}),
                    metrics.check_code,
                ),
                stored_optimizations,
                jobs,
                Results(programs, Audit(stored_audit, clock)),
                stored_executions,
                self.prices,
                clock,
                KeptOptimizations(),
            ),
            optimizing=RunsNothing(),
            jobs=jobs,
            idempotency=self.idempotency,
            executions=stored_executions,
            budgets=self.budgets,
            compiled=stored_programs,
            programs=programs,
            signatures=signatures,
            signals=self.signals,
            nodes=stored_nodes,
            caches=self.cached.caches,
            analytics=MemoryAnalytics(self.executions),
            observed=Observed(facts, Metrics(facts, self.alerts), self.alerts),
            keys=Keys(stored_keys, self.signals, clock),
            authenticator=Authenticator(stored_keys, self.signals, clock),
            audit=Audit(stored_audit, clock),
            checks=self.checks or (Check("database", lambda: stored_nodes.last_beat(NODE)),),
            breakers=breakers,
            lanes=lanes,
            code=lambda references: code_digest(references, self.settings.code_roots),
            pools=PoolsEverywhere(pools, self.signals, stored_nodes, clock, NODE),
            inspector=pools,
            python_signatures=PythonSignatures(stored_programs, self.signature_reader or pools, clock),
            streams=streams,
            elsewhere=Elsewhere(stored_executions, self.signals),
        )
        self.application: RestApplication = create_application(self.services)

    def serve_with(self, tracer: Tracer) -> None:
        """From now on requests are traced."""
        observed = replace(self.services.observed, tracer=tracer)
        self.application = create_application(replace(self.services, observed=observed))

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Calls the application without a socket."""
        transport = httpx.ASGITransport(app=self.application, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=BASE, **options)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """A real server on a port of its own; yields the port."""
        async with on_a_socket(self.application) as port:
            yield port


@asynccontextmanager
async def on_a_socket(application: RestApplication, port: int = 0) -> AsyncIterator[int]:
    config = uvicorn.Config(
        application, port=port, log_level="critical", lifespan="off", access_log=False, loop="uvloop"
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        server.force_exit = True
        await task


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that happens in another task and announces itself nowhere; fails after 10 s."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def mock_program(client: httpx.AsyncClient, name: str = "qa", **changes: Any) -> dict[str, Any]:
    """Registers a program that a script answers for, and deploys it."""
    body = {"name": name, "signature": "question -> answer", "executor": "mock", "deploy": True, **changes}
    answer = await client.post("/v1/programs", json=body)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document
