"""A model that takes 500 ms and 256 callers: does the server make them wait longer than that?"""

from contextlib import ExitStack
from dataclasses import asdict

from benchmarks.bench import CANDIDATES, NAMES, Bench, target
from benchmarks.cases import SLOW_CALLERS, SLOW_MS
from benchmarks.results import Outcome, Rows, at_least, at_most
from benchmarks.uncached import Sample, measure, median


def run(bench: Bench) -> Outcome:
    rounds, seconds = (1, 3.0) if bench.quick else (3, 8.0)
    spread_s = SLOW_MS / 1000
    samples: dict[str, list[Sample]] = {name: [] for name in CANDIDATES}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(bench.serving(name)) for name in CANDIDATES}
        targets = {name: target(name, servers[name].port, slow=True) for name in CANDIDATES}
        for name in CANDIDATES:
            # Opens the connections to the model.
            measure(servers[name], targets[name], SLOW_CALLERS, 1.0, spread_s=spread_s)
        for _ in range(rounds):
            for name in CANDIDATES:
                one = measure(servers[name], targets[name], SLOW_CALLERS, seconds, spread_s=spread_s)
                samples[name].append(one)
    medians = {name: median(found) for name, found in samples.items()}
    rows = [
        (
            # 256 callers wait for DSPy's default of 100 connections, so only the tuned one is of interest.
            NAMES["dspy, tuned" if name == "dspy" else name],
            f"{sample.per_s:.0f}",
            f"{sample.p50_ms:.0f}",
            f"{sample.p95_ms:.0f}",
            f"{sample.p99_ms:.0f}",
            f"{sample.cpu_ms:.3f}",
        )
        for name, sample in medians.items()
    ]
    ideal = SLOW_CALLERS / (SLOW_MS / 1000)
    title = (
        f"Model of {SLOW_MS} ms, {SLOW_CALLERS} callers, ideal {ideal:.0f}/s "
        f"(medians of {rounds} alternating rounds of {seconds:g} s)"
    )
    columns = ("", "requests/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms/request")
    checks = [
        at_least("slow model, requests/s", medians["dspex"].per_s, 480),
        at_most("slow model, p95 ms", medians["dspex"].p95_ms, 560),
    ]
    figures = {name: asdict(sample) for name, sample in medians.items()}
    return Outcome([Rows(title, columns, rows)], figures, checks)
