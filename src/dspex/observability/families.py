"""Every metric family of DSPex: its name, its unit, its labels. Importing it loads prometheus_client."""

import platform

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dspex.kit.version import VERSION

# One more series for each metric would say when the process began to count, which process_start_time_seconds does.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

_CALLS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_OVERHEAD_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_BYTES = (256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0)


class Families:
    """The families of one process. Gauges of several processes are added up, unless `_worst` is asked for."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str, worst: bool = False) -> Gauge:
            mode = "livemax" if worst else "livesum"
            return Gauge(name, text, labels, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        self.predictions = counter(
            "dspy_predictions_total", "Executions that ended, by how.", "program", "status"
        )
        self.duration = histogram(
            "dspy_prediction_duration_seconds",
            "From the start of an execution to its end, model calls included.",
            _CALLS_S,
            "program",
        )
        self.cache = counter(
            "dspy_cache_operations_total",
            "What the caches were asked for and answered, by kind of cache.",
            "kind",
            "operation",
        )
        self.breaker = gauge(
            "dspy_circuit_breaker_state",
            "A model's circuit breaker: 0 closed, 1 half-open, 2 open.",
            "model",
            worst=True,
        )
        self.cost = counter(
            "dspy_prediction_cost_total",
            "US dollars billed for executions; those whose price is unknown are not in it.",
            "program",
            "model",
        )
        self.tokens = counter(
            "dspy_token_usage_total",
            "Tokens that providers reported, by type; reasoning and cached tokens are part of input and output.",
            "program",
            "model",
            "type",
        )
        self.active = gauge("dspy_active_predictions", "Executions that run now.")
        self.streams = gauge("dspex_open_streams", "Connections that read the events of an execution now.")
        self.first_field = histogram(
            "dspex_stream_first_field_seconds",
            "From a request for events to the first text of a field, or to the end when there is none.",
            _CALLS_S,
            "program",
        )
        self.errors = counter(
            "dspy_errors_total", "Executions that failed, by kind and code.", "program", "kind", "code"
        )
        self.overhead = histogram(
            "dspex_overhead_seconds", "Time of an execution not spent waiting for a provider.", _OVERHEAD_S
        )
        self.calls = histogram(
            "dspex_lm_call_duration_seconds",
            "From sending a request to a model to its answer, each attempt by itself.",
            _CALLS_S,
            "model",
            "provider",
            "outcome",
        )
        self.requests = counter(
            "dspex_http_requests_total",
            "HTTP requests by route template and status; 499 is a caller that went away.",
            "method",
            "route",
            "status",
        )
        self.input_size = histogram("dspex_input_bytes", "Size of a prediction's request as JSON.", _BYTES)
        self.output_size = histogram("dspex_output_bytes", "Size of a prediction's outputs as JSON.", _BYTES)
        self.queue = gauge(
            "dspex_queue_depth", "Calls that wait for room at a model, by lane.", "model", "lane"
        )
        self.jobs = gauge(
            "dspex_jobs", "Jobs on record by kind and state, of all nodes.", "kind", "state", worst=True
        )
        self.pool_calls = histogram(
            "dspex_pool_call_duration_seconds",
            "Executions in a pool from their start to their end, by how they ended.",
            _CALLS_S,
            "pool",
            "outcome",
        )
        self.pool_up = gauge("dspex_pool_up", "1 for a pool that has a worker ready.", "pool")
        self.pool_workers = gauge("dspex_pool_workers", "Workers of a pool, by state.", "pool", "state")
        self.pool_queue = gauge("dspex_pool_queue_depth", "Executions that wait for a worker.", "pool")
        self.pool_restarts = gauge(
            "dspex_pool_restarts", "Workers that died by themselves since the node started.", "pool"
        )
        self.writer_queue = gauge(
            "dspex_writer_queue_depth", "Records of executions that wait to be committed."
        )
        self.programs = gauge(
            "dspex_active_programs",
            "Programs that ran in the alert window; of several processes the most.",
            worst=True,
        )
        self.connections = gauge(
            "dspex_database_pool_connections", "Connections of the database pool, by state.", "state"
        )
        self.pool_size = gauge("dspex_database_pool_limit", "Connections that the database pool may have.")
        self.cpu = counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")
        self.alerts = gauge("dspex_active_alerts", "Alerts that last, by rule.", "rule", worst=True)
        self.build = gauge(
            "dspex_build_info",
            "1, with the release of DSPex and Python as labels.",
            "version",
            "python",
            worst=True,
        )
        self.build.labels(VERSION, platform.python_version()).set(1)
