"""Everything that an optimization needs, over memory: a scripted model, and an optimizer that does as it is told."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from dspex.access.audit import Audit
from dspex.access.records import LOCAL_OPERATOR, AuditFilter, Principal
from dspex.access.service import Keys
from dspex.datasets.records import Bounds, Example, NewDataset
from dspex.datasets.service import Datasets
from dspex.evaluations.metrics.records import MetricSpec
from dspex.executions.records import Execution, ExecutionFilter
from dspex.gateway.records import CACHED, Dialect, FineTuningRequest, Options, Spelling
from dspex.jobs.lease import Lease
from dspex.jobs.records import Job
from dspex.jobs.service import Jobs
from dspex.jobs.worker import Worker
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Invalid
from dspex.kit.facts import Facts
from dspex.kit.signals import LocalSignals
from dspex.optimizations.planning import Planner
from dspex.optimizations.ports import OptimizerHost
from dspex.optimizations.records import Optimization, Optimized, OptimizerTask, Order
from dspex.optimizations.results import Results
from dspex.optimizations.retrying import OptimizationChanges
from dspex.optimizations.rules import KIND
from dspex.optimizations.running import OptimizationHandler, Parts
from dspex.optimizations.service import Optimizations
from dspex.programs.definitions import define
from dspex.programs.records import Definition, Program, ProgramSettings, Version
from dspex.programs.service import ProgramService
from dspex.providers.dataset_files.loader import FileLoader
from dspex.providers.memory.access import MemoryAudit, MemoryKeys
from dspex.providers.memory.datasets import MemoryDatasets
from dspex.providers.memory.executions import MemoryExecutions, MemoryNodes
from dspex.providers.memory.jobs import MemoryJobs
from dspex.providers.memory.kept_optimizations import KeptOptimizations
from dspex.providers.memory.optimizations import MemoryJournal, MemoryOptimizations
from dspex.providers.memory.programs import MemoryPrograms
from tests.unit.gateway.scripted import Model, PerToken, gateway
from tests.unit.programs.compiling import LM, Compiler

Act = Callable[[OptimizerTask, OptimizerHost], Awaitable[Optimized]]
BETTER = {
    "traces": [],
    "train": [],
    "demos": [{"question": "1?", "answer": "one"}],
    "signature": {"instructions": "Answer well.", "fields": []},
    "lm": None,
}
# The scripted model's reply: 10 tokens in, 2 out.
COST = 10 * 0.001 + 2 * 0.01
PRICED = {"main": (0.001, 0.01), "other": (0.001, 0.01)}


def asked(text: str = "Where?", rollout_id: int | None = None) -> dict[str, Any]:
    return {
        "model": "openai/gpt-4o-mini",
        "alias": "main",
        "messages": [{"role": "user", "content": text}],
        "options": {"max_tokens": 2},
        "rollout_id": rollout_id,
        "adapter": "chat",
    }


def optimized(score: float | None = 0.9, baseline: float | None = 0.5, **more: Any) -> Optimized:
    return Optimized(more.pop("state", BETTER), baseline, score, "validation", **more)


class Tuner:
    """`gateway.ports.FineTuningClient`."""

    def __init__(self) -> None:
        self.asked: list[FineTuningRequest] = []

    async def fine_tune(self, request: FineTuningRequest) -> str:
        self.asked.append(request)
        return f"ft:{request.model}:{len(self.asked)}"


class Scripted:
    """`optimizations.ports.Optimizers`."""

    def __init__(self) -> None:
        self.tasks: list[OptimizerTask] = []
        self.hosts: list[OptimizerHost] = []
        self.checked: list[tuple[str, str, Mapping[str, Any]]] = []
        self.refusal: Exception | None = None
        self.ended: list[str] = []
        self.act: Act = self._nothing

    async def _nothing(self, task: OptimizerTask, host: OptimizerHost) -> Optimized:
        return optimized()

    async def check(
        self, pool: str, project: str, definition: Definition, optimizer: str, config: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        self.checked.append((pool, optimizer, config))
        if self.refusal is not None:
            raise self.refusal
        return {"config": dict(config), "predictors": ["self"], "takes": {"metric": True}}

    async def optimize(self, task: OptimizerTask, host: OptimizerHost) -> Optimized:
        self.tasks.append(task)
        self.hosts.append(host)
        try:
            found = await self.act(task, host)
        except asyncio.CancelledError:
            self.ended.append("killed")
            raise
        self.ended.append("done")
        return found


class SpellsNothing:
    async def of(self, settings: Any) -> Spelling:
        return Spelling(Dialect(), Options())


async def nothing() -> None:
    """A heartbeat that always succeeds."""


@dataclass
class House:
    model: Model = field(default_factory=Model)
    optimizers: Scripted = field(default_factory=Scripted)
    rates: Mapping[str, tuple[float, float]] = field(default_factory=lambda: dict(PRICED))
    timeout_s: float = 60.0
    model_timeout_s: float = 30.0
    tuner: Tuner = field(default_factory=Tuner)
    program: Program = field(init=False)

    def __post_init__(self) -> None:
        clock, facts, signals = SystemClock(), Facts(), LocalSignals()
        self.facts = facts
        self.executions = MemoryExecutions(MemoryNodes())
        self.jobs_store, self.journal = MemoryJobs(), MemoryJournal()
        self.store_of_programs = MemoryPrograms(self.jobs_store)
        self.programs = ProgramService(self.store_of_programs, Compiler(), clock, facts)
        self.store_of_datasets = MemoryDatasets()
        self.datasets = Datasets(self.store_of_datasets, FileLoader(), clock, Bounds(100_000, 10**9, 10**6))
        self.store = MemoryOptimizations(self.jobs_store, self.journal)
        changes = {KIND: OptimizationChanges(self.store, self.journal)}
        self.jobs = Jobs(self.jobs_store, signals, clock, changes)
        self.prices = PerToken(self.rates)
        self.gateway = gateway(self.model, self.prices, clock, timeout_s=self.model_timeout_s)
        self.keys = MemoryKeys()
        self.audit = MemoryAudit()
        results = Results(self.programs, Audit(self.audit, clock))
        planner = Planner(
            self.programs,
            self.datasets,
            self.optimizers,
            self.gateway,
            self.prices,
            lambda references: "c0de",
            frozenset({"general"}),
            self.check_metric,
        )
        self.service = Optimizations(
            planner,
            self.store,
            self.jobs,
            results,
            self.executions,
            self.prices,
            clock,
            KeptOptimizations(),
        )
        self.handler = OptimizationHandler(
            Parts(
                self.optimizers,
                self.gateway,
                SpellsNothing(),
                self.prices,
                self.programs,
                self.datasets,
                self.store,
                self.journal,
                self.executions,
                results,
                Keys(self.keys, signals, clock),
                clock,
                facts,
                "me",
                CACHED,
                self.timeout_s,
                10**6,
                lambda alias: self.tuner,
            )
        )
        lease = Lease(nothing, clock)
        self.worker = Worker(self.jobs_store, changes, {KIND: self.handler}, lease, clock, facts, "me")
        lease.look_after = self.worker.look_after
        signals.on("jobs.cancelled", lambda told: self.worker.cancel(told["project"], told["id"]))
        signals.on("jobs.paused", lambda told: self.worker.let_go(told["project"], told["id"]))

    async def check_metric(self, metric: MetricSpec, principal: Principal) -> None:
        if metric.reference is not None and metric.reference.endswith(":absent"):
            raise Invalid("There is no such function.", code="bad_metric")

    async def furnish(self, rows: int = 10, **settings: Any) -> "House":
        """A deployed program `qa` and a dataset `questions`."""
        definition = define("question -> answer", "predict", "chat", LM)
        program, version = await self.programs.create(
            "default", "qa", definition, settings=ProgramSettings(**settings), source="api"
        )
        (version,) = await self.programs.initialize([version])
        self.program = await self.programs.deploy(program, version)
        await self.add_dataset("questions", range(rows))
        return self

    async def add_dataset(self, name: str, numbers: Sequence[int] | range, **outputs: Any) -> None:
        examples = [Example({"question": f"{n}?"}, outputs or {"answer": f"{n}"}) for n in numbers]
        await self.datasets.create("default", NewDataset(name, "training"), examples)

    async def order(self, **changes: Any) -> Optimization:
        made, _ = await self.service.create(LOCAL_OPERATOR, self.ordered(**changes))
        return made

    def ordered(self, **changes: Any) -> Order:
        return replace(Order("qa", "questions"), **changes)

    async def job(self, optimization: Optimization) -> Job:
        return await self.jobs.get("default", optimization.id)

    async def in_flight(self, **more: Any) -> "tuple[Optimization, asyncio.Task[Optimization]]":
        """One whose only call is not answered, and its turn, which goes on: the model has been asked."""

        async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
            await host.complete(asked("slow"))
            return optimized()

        self.model.outcomes.append(None)
        self.optimizers.act = act
        made = await self.order(**more)
        turn = asyncio.create_task(self.take(made))
        await self.model.waiting.wait()
        return made, turn

    async def take(self, optimization: Optimization) -> Optimization:
        """One turn of its job, to the turn's end."""
        job = await self.job(optimization)
        await self.worker.take("default", job.id, job.turn)
        return await self.now(optimization)

    async def now(self, optimization: Optimization) -> Optimization:
        found = await self.store.get("default", optimization.id)
        assert found is not None
        return found

    async def version(self, number: int) -> Version:
        program = await self.programs.get("default", "qa")
        return await self.programs.version_numbered(program, number)

    async def accounts(self) -> Sequence[Execution]:
        """What attempts cost, as executions on record."""
        where = ExecutionFilter()
        page = await self.executions.list("default", where, sort="created_at", limit=99, cursor=None)
        return page.data

    async def audited(self) -> list[str]:
        page = await self.audit.list("default", AuditFilter(), limit=99, cursor=None)
        return [one.action for one in page.data]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def candidate(number: int, score: float, **more: Any) -> dict[str, Any]:
    """One that was scored on all of the held-out rows."""
    told = {"event": "candidate", "number": number, "of": 3, "score": score, "best": True}
    return {**told, "full": True, "ours": True, **more}
