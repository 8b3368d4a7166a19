"""The benchmark suite measures what it says: right answers count, wrong ones stop it."""

import asyncio
from dataclasses import replace

import pytest

from benchmarks.bench import open_bench, target
from benchmarks.cases import SLOW_MS, TRIAGE
from benchmarks.load import run_load
from benchmarks.uncached import measure


def test_a_server_is_measured_and_wrong_answers_are_noticed() -> None:
    with open_bench(quick=True) as bench, bench.serving("bare") as server:
        wanted = target("bare", server.port)

        sample = measure(server, wanted, 4, 0.5)
        assert sample.per_s > 1
        assert 0 < sample.p50_ms <= sample.p95_ms <= sample.p99_ms
        assert 0 < sample.cpu_ms < 100
        assert server.memory_mb() > 5

        with pytest.raises(RuntimeError, match="wrong answers, such as 500"):
            measure(server, replace(wanted, case=TRIAGE), 2, 0.2)


def test_callers_share_the_requests_and_a_slow_model_is_slow() -> None:
    with open_bench(quick=True) as bench, bench.serving("bare") as server:
        load = asyncio.run(run_load(target("bare", server.port), 3, requests=10))
        assert (load.total, len(load.latencies), load.wrong) == (10, 10, 0)
        slow = asyncio.run(run_load(target("bare", server.port, slow=True), 2, requests=2))
        assert slow.latencies[0] * 1000 >= SLOW_MS
