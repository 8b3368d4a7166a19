"""Metrics: what is counted, under which names and labels, and that promtool has nothing to say."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from dspex.configuration.alerting import AlertSettings
from dspex.gateway.facts import BreakerChanged, CacheLooked
from dspex.kit.facts import Facts
from dspex.observability.alerts import Alerts
from dspex.observability.exposition import exposition, forget_process
from dspex.observability.facts import RequestFinished
from dspex.observability.metrics import MOST_LABELS, Gauges, Metrics, Pool
from dspex.observability.optimization_figures import OptimizationFigures
from dspex.optimizations.records import Ended
from dspex.providers.memory.alerts import MemoryAlertBoard
from tests.making import NOON
from tests.unit.observability.given import UNAVAILABLE, Called, FakeClock, finished

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4"
PROMTOOL = shutil.which("promtool")


@dataclass
class Watched:
    facts: Facts
    alerts: Alerts
    metrics: Metrics

    async def text(self) -> str:
        body, content_type = await self.metrics.exposition("")
        assert content_type.startswith("text/plain; version=0.0.4")
        return body.decode()

    async def value(self, name: str, **labels: str) -> float | None:
        for family in text_string_to_metric_families(await self.text()):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return None


def optimizations() -> OptimizationFigures:
    figures = OptimizationFigures()
    later = [NOON + timedelta(minutes=minutes) for minutes in (4, 40)]
    figures.add(
        [
            Ended("default", "a", "GEPA", "completed", NOON, later[0], 0.4, 0.7),
            Ended("default", "b", "GEPA", "completed", NOON, later[1], 0.5, 0.5),
            Ended("default", "c", "GEPA", "failed", NOON, later[0], 0.5),
            Ended("default", "d", "COPRO", "cancelled", None, later[0]),
        ]
    )
    return figures


@pytest.fixture
def watched() -> Iterator[Watched]:
    facts, clock = Facts(), FakeClock()
    alerts = Alerts(AlertSettings(), facts, clock, "node-1", MemoryAlertBoard())
    gauges = Gauges(
        in_flight=lambda: 3,
        writer_queue=lambda: 4,
        queues=lambda: {("main", "interactive"): 5},
        pool=lambda: Pool(in_use=1, idle=2, limit=10),
        optimizations=optimizations,
    )
    yield Watched(facts, alerts, Metrics(facts, alerts, gauges))


def everything(facts: Facts) -> None:
    facts.announce(finished())
    facts.announce(finished(error=UNAVAILABLE, cost_usd=None, usage={}))
    facts.announce(finished(status="cancelled"))
    facts.announce(Called().fact)
    facts.announce(Called(error={"kind": "timeout", "code": "lm_timeout"}).fact)
    facts.announce(RequestFinished("POST", "/v1/predict", 200, NOON, 0.1, "r1"))
    for outcome in ("hit", "miss", "write", "stale"):
        facts.announce(CacheLooked("reply", "memory", outcome, "default"))  # type: ignore[arg-type]
    facts.announce(CacheLooked("embedding", "memory", "hit", "default", 7))
    facts.announce(BreakerChanged("main", "closed", "open", "5 failures", "calls"))


async def test_what_is_announced_before_the_library_is_loaded_is_counted_too(watched: Watched) -> None:
    everything(watched.facts)
    assert await watched.value("dspy_predictions_total", program="qa", status="success") == 1
    everything(watched.facts)
    assert await watched.value("dspy_predictions_total", program="qa", status="success") == 2


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("dspy_predictions_total", {"program": "qa", "status": "error"}, 1),
        ("dspy_predictions_total", {"program": "qa", "status": "cancelled"}, 1),
        ("dspy_prediction_duration_seconds_count", {"program": "qa"}, 3),
        ("dspy_prediction_duration_seconds_sum", {"program": "qa"}, pytest.approx(0.3)),
        ("dspy_cache_operations_total", {"kind": "reply", "operation": "hit"}, 1),
        ("dspy_cache_operations_total", {"kind": "reply", "operation": "stale"}, 1),
        ("dspy_cache_operations_total", {"kind": "embedding", "operation": "hit"}, 7),
        ("dspy_circuit_breaker_state", {"model": "main"}, 2),
        ("dspy_prediction_cost_total", {"program": "qa", "model": "main"}, 0.5),
        ("dspy_token_usage_total", {"program": "qa", "model": "main", "type": "input"}, 200),
        ("dspy_token_usage_total", {"program": "qa", "model": "main", "type": "output"}, 40),
        ("dspy_token_usage_total", {"program": "qa", "model": "main", "type": "total"}, None),
        ("dspy_active_predictions", {}, 3),
        (
            "dspy_errors_total",
            {"program": "qa", "kind": "unavailable", "code": "lm_server_error"},
            1,
        ),
        ("dspex_overhead_seconds_count", {}, 3),
        ("dspex_queue_depth", {"model": "main", "lane": "interactive"}, 5),
        ("dspex_writer_queue_depth", {}, 4),
        (
            "dspex_lm_call_duration_seconds_count",
            {"model": "main", "provider": "openai", "outcome": "success"},
            1,
        ),
        (
            "dspex_lm_call_duration_seconds_sum",
            {"model": "main", "provider": "openai", "outcome": "timeout"},
            0.25,
        ),
        ("dspex_http_requests_total", {"method": "POST", "route": "/v1/predict", "status": "200"}, 1),
        ("dspex_input_bytes_sum", {}, 900),
        ("dspex_output_bytes_bucket", {"le": "256.0"}, 3),
        ("dspex_active_programs", {}, 1),
        ("dspex_database_pool_connections", {"state": "idle"}, 2),
        ("dspex_database_pool_limit", {}, 10),
        ("dspex_optimizations_total", {"optimizer": "GEPA", "status": "success"}, 2),
        ("dspex_optimizations_total", {"optimizer": "GEPA", "status": "error"}, 1),
        ("dspex_optimizations_total", {"optimizer": "COPRO", "status": "cancelled"}, 1),
        (
            "dspex_optimization_duration_seconds_bucket",
            {"optimizer": "GEPA", "status": "success", "le": "300.0"},
            1,
        ),
        ("dspex_optimization_duration_seconds_sum", {"optimizer": "GEPA", "status": "success"}, 2640),
        ("dspex_optimization_duration_seconds_count", {"optimizer": "COPRO", "status": "cancelled"}, None),
        ("dspex_optimization_score_ratio_sum", {"optimizer": "GEPA", "of": "baseline"}, 0.9),
        ("dspex_optimization_score_ratio_sum", {"optimizer": "GEPA", "of": "result"}, 1.2),
        ("dspex_optimization_score_ratio_bucket", {"optimizer": "GEPA", "of": "result", "le": "0.5"}, 1),
        ("dspex_optimization_score_ratio_count", {"optimizer": "GEPA", "of": "result"}, 2),
    ],
)
async def test_facts_become_these_series(
    watched: Watched, name: str, labels: dict[str, str], value: float | None
) -> None:
    everything(watched.facts)
    await watched.alerts.look()
    assert await watched.value(name, **labels) == value


async def test_the_process_and_the_build_are_shown(watched: Watched) -> None:
    text = await watched.text()
    assert re.search(r'^dspex_build_info\{python="3\.\d+\.\d+",version="[\d.]+"\} 1\.0$', text, re.M)
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        assert re.search(rf"^{name} [1-9]", text, re.M), name


async def test_a_closed_breaker_is_0_and_a_half_open_one_1(watched: Watched) -> None:
    watched.facts.announce(BreakerChanged("main", "open", "half_open", "60 s", "calls"))
    assert await watched.value("dspy_circuit_breaker_state", model="main") == 1
    watched.facts.announce(BreakerChanged("main", "half_open", "closed", "3 successes", "calls"))
    assert await watched.value("dspy_circuit_breaker_state", model="main") == 0


async def test_an_answer_from_the_cache_is_no_call_to_a_provider(watched: Watched) -> None:
    watched.facts.announce(Called(cache="hit").fact)
    assert "dspex_lm_call_duration_seconds_count" not in await watched.text()


async def test_programs_beyond_the_bound_share_one_label(watched: Watched) -> None:
    for number in range(MOST_LABELS + 50):
        watched.facts.announce(finished(program=f"p{number}"))
    assert await watched.value("dspy_predictions_total", program="p0", status="success") == 1
    assert await watched.value("dspy_predictions_total", program="other", status="success") == 50
    programs = {
        sample.labels["program"]
        for family in text_string_to_metric_families(await watched.text())
        for sample in family.samples
        if "program" in sample.labels
    }
    assert len(programs) == MOST_LABELS + 1


async def test_methods_that_nobody_knows_are_no_labels(watched: Watched) -> None:
    watched.facts.announce(RequestFinished("BREW", "(no route)", 404, NOON, 0.1, "r1"))
    assert (
        await watched.value("dspex_http_requests_total", method="other", route="(no route)", status="404")
        == 1
    )


async def test_who_accepts_openmetrics_gets_it(watched: Watched) -> None:
    everything(watched.facts)
    body, content_type = await watched.metrics.exposition(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in parse_openmetrics(body.decode())}
    assert {"dspy_predictions", "dspy_prediction_duration_seconds", "dspy_active_predictions"} <= names


async def test_names_and_units_follow_the_rules_of_prometheus(watched: Watched) -> None:
    everything(watched.facts)
    text = await watched.text()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.M))
    assert set(types) == set(helps)
    for name, kind in types.items():
        assert re.fullmatch(r"(dspy|dspex|process)_[a-z_]+", name), name
        assert (kind == "counter") == name.endswith("_total"), name
        if kind == "histogram":
            assert name.endswith(("_seconds", "_bytes", "_ratio")), name
        assert not re.search(r"_(ms|milliseconds|kb|count|sum|bucket|created)$", name), name
    if PROMTOOL is not None:
        # Few machines have it; the rules above are its own.
        checked = subprocess.run(
            [PROMTOOL, "check", "metrics"], input=text.encode(), capture_output=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_subscribing_does_not_load_the_library() -> None:
    source = (
        "import sys, dspex.application.observing, dspex.observability.observed\n"
        "heavy = ('prometheus_client', 'opentelemetry', 'sentry_sdk', 'aiohttp')\n"
        "sys.exit(', '.join(name for name in heavy if name in sys.modules) or 0)"
    )
    subprocess.run([sys.executable, "-c", source], check=True)


def test_what_processes_counted_that_ended_is_kept_in_one_file(tmp_path: Path) -> None:
    # The library looks for the directory once, when it is imported.
    source = (
        "import sys\n"
        "from dspex.observability.families import Families\n"
        "families = Families()\n"
        "families.predictions.labels('qa', 'success').inc(2)\n"
        "families.predictions.labels(sys.argv[1], 'success').inc()\n"
        "families.duration.labels('qa').observe(0.3)\n"
        "families.active.set(5)\n"
        "import os; print(os.getpid())"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    pids = []
    for name in ("a", "b", "c"):
        ran = subprocess.run(
            [sys.executable, "-c", source, name], env=environment, check=True, capture_output=True
        )
        pids.append(int(ran.stdout))
    before = counted(tmp_path)
    assert before['dspy_predictions_total{program="qa",status="success"}'] == 6
    for pid in pids:
        forget_process(pid, tmp_path)
        assert counted(tmp_path) == before
    assert sorted(one.name for one in tmp_path.glob("*.db")) == ["counter_ended.db", "histogram_ended.db"]


def counted(directory: Path) -> dict[str, float]:
    """Counters and histograms by their series."""
    text = exposition(CollectorRegistry(), directory, "")[0].decode()
    found = re.findall(r"^(dspy_pred\S+|dspex_\w+(?:_count|_sum|_bucket)\S*) (\S+)$", text, re.M)
    return {series: float(value) for series, value in found if "_active_" not in series}
