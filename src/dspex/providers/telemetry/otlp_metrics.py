"""Metrics to an OTLP collector: the GenAI client metrics of OpenTelemetry, and predictions."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from dspex.executions.facts import ExecutionFinished
from dspex.gateway.facts import LanguageModelCalled
from dspex.kit.facts import Facts
from dspex.observability.metrics import STATUS, Bounded
from dspex.observability.spans import operation_name, provider_name
from dspex.providers.telemetry.otlp import CLOSE_S, EARLY, closed_within, resource

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider

# As the conventions advise.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


class OtlpMetrics:
    """Sends every OTEL_METRIC_EXPORT_INTERVAL milliseconds, 60 000 unless set. `programs` are named always."""

    def __init__(self, endpoint: str | None, node: str, facts: Facts, programs: Collection[str] = ()) -> None:
        self._programs = programs
        self._endpoint = endpoint
        self._node = node
        self._instruments: _Instruments | None = None
        self._early: deque[ExecutionFinished | LanguageModelCalled] = deque(maxlen=EARLY)
        facts.subscribe(ExecutionFinished, self._take)
        facts.subscribe(LanguageModelCalled, self._take)

    def _take(self, fact: ExecutionFinished | LanguageModelCalled) -> None:
        if self._instruments is None:
            self._early.append(fact)
        else:
            self._instruments.record(fact)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Loads in a thread; leaving it sends what was counted, for `CLOSE_S` at most."""
        loading = asyncio.create_task(self._load())
        try:
            yield
        finally:
            provider = await loading
            await closed_within(provider.shutdown, CLOSE_S)

    async def _load(self) -> "MeterProvider":
        provider = await asyncio.to_thread(self._open)
        instruments = _Instruments(provider, self._programs)
        for fact in self._early:
            instruments.record(fact)
        self._early.clear()
        self._instruments = instruments
        return provider

    def _open(self) -> "MeterProvider":
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=self._endpoint))
        return MeterProvider([reader], resource=resource(self._node), shutdown_on_exit=False)


class _Instruments:
    def __init__(self, provider: "MeterProvider", programs: Collection[str]) -> None:
        meter = provider.get_meter("dspex")
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens of prompts and replies.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._calls = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="Time of a call to a model.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._predictions = meter.create_counter(
            "dspex.predictions", unit="{prediction}", description="Executions that ended."
        )
        self._duration = meter.create_histogram(
            "dspex.prediction.duration",
            unit="s",
            description="Time of an execution.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._cost = meter.create_counter("dspex.prediction.cost", unit="USD", description="What was billed.")
        self._program = Bounded(programs)

    def record(self, fact: ExecutionFinished | LanguageModelCalled) -> None:
        if isinstance(fact, ExecutionFinished):
            self._execution(fact)
        elif fact.call.cache != "hit":
            self._call(fact)

    def _execution(self, fact: ExecutionFinished) -> None:
        execution = fact.execution
        program = {"dspex.program": self._program(execution.program)}
        self._predictions.add(1, {**program, "dspex.status": STATUS.get(execution.status, execution.status)})
        self._duration.record((execution.duration_ms or 0.0) / 1000, program)
        if execution.cost_usd:
            self._cost.add(execution.cost_usd, program)

    def _call(self, fact: LanguageModelCalled) -> None:
        call, request = fact.call, fact.request
        attributes: dict[str, Any] = {"gen_ai.operation.name": operation_name(request)}
        if request is not None:
            attributes["gen_ai.provider.name"] = provider_name(request)
            attributes["gen_ai.request.model"] = request.dialect.model
        if call.error is None:
            attributes["gen_ai.response.model"] = call.provider_model
        failure = {} if call.error is None else {"error.type": call.error["code"]}
        self._calls.record(call.latency_ms / 1000, {**attributes, **failure})
        for kind, count in (("input", call.usage.input_tokens), ("output", call.usage.output_tokens)):
            if count is not None:
                self._tokens.record(count, {**attributes, "gen_ai.token.type": kind})
