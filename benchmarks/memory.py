"""Resident memory of the serving process: after its start, and as it answers 100 000 different requests."""

import uvloop

from benchmarks.bench import CANDIDATES, NAMES, Bench, target
from benchmarks.load import run_load
from benchmarks.results import Outcome, Rows, at_most
from benchmarks.uncached import CALLERS

STEPS = 10
# Allocators return nothing at once: the first half may fill their pools, the second must not grow.
FLAT_MB = 2.0


def run(bench: Bench) -> Outcome:
    step = 500 if bench.quick else 10_000
    started = {}
    for name in CANDIDATES[1:]:
        with bench.serving(name) as server:
            started[name] = server.memory_mb()
    with bench.serving("dspex") as server:
        grown = [server.memory_mb()]
        for _ in range(STEPS):
            load = uvloop.run(run_load(target("dspex", server.port), CALLERS, requests=step))
            if load.wrong:
                raise RuntimeError(f"DSPex gave {load.wrong} wrong answers, such as {load.example}")
            grown.append(server.memory_mb())
    rows = [(f"{NAMES[name]}, after 200 requests", f"{size:.1f}") for name, size in started.items()]
    rows += [
        (f"{NAMES['dspex']}, after {200 + index * step} requests", f"{size:.1f}")
        for index, size in enumerate(grown)
    ]
    growth = grown[-1] - grown[STEPS // 2]
    checks = [
        at_most("memory of the serving process at its largest, MB", max(grown), 110),
        at_most(f"growth over the last {STEPS // 2 * step} requests, MB", growth, FLAT_MB),
    ]
    figures = {"dspex": grown, "step": step, **started}
    return Outcome([Rows("Resident memory", ("", "MB"), rows)], figures, checks)
