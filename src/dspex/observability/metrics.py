"""Metrics: facts become counters and histograms, what stands at a moment becomes gauges."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import structlog
from msgspec import Struct, field

from dspex.executions.facts import ExecutionFinished, PoolCalled, StreamBegan
from dspex.executions.ports import PoolView, WorkerState
from dspex.gateway.facts import BreakerChanged, CacheLooked, LanguageModelCalled
from dspex.gateway.records import Lane
from dspex.kit.facts import Facts
from dspex.observability.alerts import Alerts
from dspex.observability.facts import RequestFinished
from dspex.observability.spans import provider_name

if TYPE_CHECKING:
    from dspex.observability.families import Families
    from dspex.observability.optimization_figures import OptimizationFigures

log = structlog.get_logger(__name__)
T = TypeVar("T")
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
# Loading prometheus_client takes 50 ms, which neither the start nor the first answers should wait for.
LOAD_AFTER_S = 2.0
SAMPLE_S = 1.0
MOST_LABELS = 200
OTHER = "other"
BREAKER = {"closed": 0, "half_open": 1, "open": 2}
STATUS = {"completed": "success", "failed": "error"}


class Pool(Struct, frozen=True):
    """Database connections: in use, idle, and how many there may be."""

    in_use: int
    idle: int
    limit: int


class Gauges(Struct, frozen=True):
    """What stands at a moment, asked every second and with each scrape. Queues are by model and lane, jobs by kind

    and state.
    """

    in_flight: Callable[[], int] = lambda: 0
    writer_queue: Callable[[], int] = lambda: 0
    queues: Callable[[], Mapping[tuple[str, Lane], int]] = dict
    pool: Callable[[], Pool | None] = lambda: None
    jobs: Callable[[], Mapping[tuple[str, str], int]] = dict
    worker_pools: Callable[[], Sequence[PoolView]] = tuple
    streams: Callable[[], int] = lambda: 0
    optimizations: Callable[[], "OptimizationFigures | None"] = lambda: None


NO_GAUGES = Gauges()


class Bounded:
    """The first `MOST_LABELS` values and those that `always` are by their own name, all others as one."""

    def __init__(self, always: Collection[str] = ()) -> None:
        self._always = frozenset(always)
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._always or value in self._known:
            return value
        if len(self._known) >= MOST_LABELS:
            return OTHER
        self._known.add(value)
        return value


class Metrics:
    """Subscribes to the facts. Until the library is loaded they are kept, so that nothing is lost.

    With `directory`, where all processes of a node write, a scrape of one answers for all. `programs` have labels of
    their own however many others there are.
    """

    def __init__(
        self,
        facts: Facts,
        alerts: Alerts,
        gauges: Gauges = NO_GAUGES,
        directory: Path | None = None,
        programs: Collection[str] = (),
    ) -> None:
        self._programs = programs
        self._alerts = alerts
        self._gauges = gauges
        self._directory = directory
        self._recorder: _Recorder | None = None
        self._early: list[object] = []
        self._loading = asyncio.Lock()
        for fact in (
            ExecutionFinished,
            StreamBegan,
            LanguageModelCalled,
            RequestFinished,
            CacheLooked,
            BreakerChanged,
            PoolCalled,
        ):
            facts.subscribe(fact, self._take)

    def _take(self, fact: object) -> None:
        if self._recorder is None:
            self._early.append(fact)
        else:
            self._recorder.record(fact)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Loads the library a moment after the start, then samples the gauges until it is left."""
        sampling = asyncio.create_task(self._sample_for_ever())
        try:
            yield
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)

    async def _sample_for_ever(self) -> None:
        await asyncio.sleep(LOAD_AFTER_S)
        while True:
            try:
                (await self._loaded()).sample(self._gauges, self._alerts)
            except Exception:
                # The next round may do better; serving goes on without.
                log.exception("metrics_not_sampled")
            await asyncio.sleep(SAMPLE_S)

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """The metrics as text or OpenMetrics, as `accept` asks, and their content type."""
        recorder = await self._loaded()
        recorder.sample(self._gauges, self._alerts)
        from dspex.observability.exposition import exposition

        optimizations = self._gauges.optimizations()
        return await asyncio.to_thread(
            exposition, recorder.families.registry, self._directory, accept, optimizations
        )

    async def _loaded(self) -> "_Recorder":
        async with self._loading:
            if self._recorder is None:
                recorder = _Recorder(await asyncio.to_thread(self._families), self._programs)
                for fact in self._early:
                    recorder.record(fact)
                self._early.clear()
                self._recorder = recorder
        return self._recorder

    def _families(self) -> "Families":
        # The library reads this variable once, when it is imported.
        if self._directory is None:
            os.environ.pop(DIRECTORY, None)
        else:
            os.environ[DIRECTORY] = str(self._directory)
        from dspex.observability.families import Families

        return Families()


class _Program(Struct):
    """The series of one program, looked up once: finding them by their labels costs more than counting."""

    label: str
    observe_duration: Callable[[float], None]
    ended: dict[str, Callable[[], None]] = field(default_factory=dict)
    cost: dict[str, Callable[[float], None]] = field(default_factory=dict)
    tokens: dict[tuple[str, str], Callable[[float], None]] = field(default_factory=dict)


class _Recorder:
    def __init__(self, families: "Families", programs: Collection[str]) -> None:
        self.families = families
        self._program_label, self._model_label, self._code_label = Bounded(programs), Bounded(), Bounded()
        self._programs: dict[str, _Program] = {}
        self._calls: dict[tuple[str, str, str], Callable[[float], None]] = {}
        self._requests: dict[tuple[str, str, int], Callable[[], None]] = {}
        self._cache: dict[tuple[str, str], Callable[[float], None]] = {}
        self._queues: set[tuple[str, Lane]] = set()
        self._rules: set[str] = set()
        self._jobs: set[tuple[str, str]] = set()
        self._cpu_s = 0.0
        self._handlers: dict[type, Callable[[Any], None]] = {
            ExecutionFinished: self._execution,
            StreamBegan: self._stream,
            LanguageModelCalled: self._call,
            RequestFinished: self._request,
            CacheLooked: self._looked,
            BreakerChanged: self._breaker,
            PoolCalled: self._pool_call,
        }

    def record(self, fact: object) -> None:
        self._handlers[type(fact)](fact)

    def _execution(self, fact: ExecutionFinished) -> None:
        families, execution = self.families, fact.execution
        program = self._programs.get(execution.program) or self._program(execution.program)
        status = STATUS.get(execution.status, execution.status)
        count = program.ended.get(status)
        if count is None:
            count = program.ended[status] = families.predictions.labels(program.label, status).inc
        count()
        if execution.duration_ms is not None:
            program.observe_duration(execution.duration_ms / 1000)
        if execution.overhead_ms is not None:
            families.overhead.observe(execution.overhead_ms / 1000)
        if fact.input_bytes is not None:
            families.input_size.observe(fact.input_bytes)
        if fact.output_bytes is not None:
            families.output_size.observe(fact.output_bytes)
        model = execution.model or "none"
        if execution.cost_usd:
            add = program.cost.get(model)
            if add is None:
                add = families.cost.labels(program.label, self._model_label(model)).inc
                _keep(program.cost, model, add)
            add(execution.cost_usd)
        for kind, tokens in execution.usage.items():
            if kind == "total_tokens":
                # Input and output once more: whoever adds the types up would count twice.
                continue
            add = program.tokens.get((model, kind))
            if add is None:
                label = kind.removesuffix("_tokens")
                add = families.tokens.labels(program.label, self._model_label(model), label).inc
                _keep(program.tokens, (model, kind), add)
            add(tokens)
        if execution.error is not None:
            error = execution.error
            families.errors.labels(program.label, error.kind, self._code_label(error.code)).inc()

    def _stream(self, fact: StreamBegan) -> None:
        self.families.first_field.labels(self._program_label(fact.program)).observe(fact.first_s)

    def _program(self, name: str) -> _Program:
        label = self._program_label(name)
        known = self._programs.get(label)
        if known is None:
            known = self._programs[label] = _Program(label, self.families.duration.labels(label).observe)
        return known

    def _call(self, fact: LanguageModelCalled) -> None:
        call = fact.call
        if call.cache == "hit":
            # Nobody was called: the answer was there.
            return
        provider = call.dialect if fact.request is None else provider_name(fact.request)
        outcome = "success" if call.error is None else call.error["kind"]
        key = (call.model, provider, outcome)
        observe = self._calls.get(key)
        if observe is None:
            label = self._model_label(call.model)
            provider = OTHER if label == OTHER else provider
            observe = self.families.calls.labels(label, provider, outcome).observe
            _keep(self._calls, key, observe)
        observe(call.latency_ms / 1000)

    def _request(self, fact: RequestFinished) -> None:
        key = (fact.method, fact.route, fact.status)
        count = self._requests.get(key)
        if count is None:
            method = fact.method if fact.method in _METHODS else OTHER
            count = self.families.requests.labels(method, fact.route, str(fact.status)).inc
            _keep(self._requests, key, count)
        count()

    def _looked(self, fact: CacheLooked) -> None:
        key = (fact.kind, fact.outcome)
        count = self._cache.get(key)
        if count is None:
            count = self._cache[key] = self.families.cache.labels(*key).inc
        count(fact.count)

    def _breaker(self, fact: BreakerChanged) -> None:
        label = self._model_label(fact.model)
        if label != OTHER:
            self.families.breaker.labels(label).set(BREAKER[fact.after])

    def sample(self, gauges: Gauges, alerting: Alerts) -> None:
        families = self.families
        cpu_s = time.process_time()
        families.cpu.inc(cpu_s - self._cpu_s)
        self._cpu_s = cpu_s
        families.active.set(gauges.in_flight())
        families.streams.set(gauges.streams())
        families.programs.set(alerting.active_programs)
        families.writer_queue.set(gauges.writer_queue())
        queues = gauges.queues()
        for model, lane in self._queues | queues.keys():
            families.queue.labels(model, lane).set(queues.get((model, lane), 0))
        self._queues |= queues.keys()
        jobs = gauges.jobs()
        for kind, state in self._jobs | jobs.keys():
            families.jobs.labels(kind, state).set(jobs.get((kind, state), 0))
        self._jobs |= jobs.keys()
        alerts = alerting.counted()
        for rule in self._rules | alerts.keys():
            families.alerts.labels(rule).set(alerts.get(rule, 0))
        self._rules |= alerts.keys()
        pool = gauges.pool()
        if pool is not None:
            families.connections.labels("in_use").set(pool.in_use)
            families.connections.labels("idle").set(pool.idle)
            families.pool_size.set(pool.limit)
        for workers in gauges.worker_pools():
            self._worker_pool(workers)

    def _worker_pool(self, pool: PoolView) -> None:
        families = self.families
        counts = dict.fromkeys(get_args(WorkerState), 0)
        for worker in pool.workers:
            counts[worker.state] += 1
        for state, count in counts.items():
            families.pool_workers.labels(pool.name, state).set(count)
        families.pool_up.labels(pool.name).set(float(counts["ready"] + counts["busy"] > 0))
        families.pool_queue.labels(pool.name).set(pool.waiting)
        families.pool_restarts.labels(pool.name).set(pool.restarts)

    def _pool_call(self, fact: PoolCalled) -> None:
        self.families.pool_calls.labels(fact.pool, fact.outcome).observe(fact.duration_s)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _keep(series: dict[T, Callable[..., None]], key: T, bound: Callable[..., None]) -> None:
    """Beyond the bound of labels a series is looked up each time: what is remembered is bounded as well."""
    if len(series) < 4 * MOST_LABELS:
        series[key] = bound
