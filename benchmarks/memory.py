"""Resident memory of the serving process: after its start, and as it answers 100 000 different requests.

Each of them is kept in the caches. With caches of a hundred entries the figure is that of the process; what full
caches of the default size add is measured apart.
"""

import uvloop

from benchmarks.bench import CANDIDATES, NAMES, Bench, target
from benchmarks.load import run_load
from benchmarks.processes import Server
from benchmarks.results import Outcome, Rows, at_most
from benchmarks.uncached import CALLERS

STEPS = 10
# Allocators return nothing at once: the first half may fill their pools, the second must not grow.
FLAT_MB = 2.0
SMALL_CACHES = {"DSPEX_CACHE__ENTRIES": "100"}
FULL_STEPS = 4


def run(bench: Bench) -> Outcome:
    step = 500 if bench.quick else 10_000
    started = {}
    for name in CANDIDATES[1:]:
        with bench.serving(name) as server:
            started[name] = server.memory_mb()
    with bench.serving("dspex"):
        pass  # Compiles and registers the programs, which takes libraries that a later start does without.
    with bench.serving("dspex", SMALL_CACHES) as server:
        grown = [server.memory_mb(), *_grown(server, STEPS, step)]
    with bench.serving("dspex") as server:
        # Full after the first step.
        full = _grown(server, FULL_STEPS, step)
    rows = [(f"{NAMES[name]}, after 200 requests", f"{size:.1f}") for name, size in started.items()]
    rows += [
        (f"{NAMES['dspex']}, after {200 + index * step} requests", f"{size:.1f}")
        for index, size in enumerate(grown)
    ]
    rows += [
        (f"the same with caches of 10 000 entries, after {200 + index * step} requests", f"{size:.1f}")
        for index, size in enumerate(full, 1)
    ]
    growth = grown[-1] - grown[STEPS // 2]
    checks = [
        at_most("memory of the serving process at its largest, MB", max(grown), 110),
        at_most(f"growth over the last {STEPS // 2 * step} requests, MB", growth, FLAT_MB),
        at_most(f"growth of full caches over the last {step} requests, MB", full[-1] - full[-2], FLAT_MB),
    ]
    figures = {"dspex": grown, "full caches": full, "step": step, **started}
    return Outcome([Rows("Resident memory", ("", "MB"), rows)], figures, checks)


def _grown(server: Server, steps: int, step: int) -> list[float]:
    found = []
    for _ in range(steps):
        load = uvloop.run(run_load(target("dspex", server.port), CALLERS, requests=step))
        if load.wrong:
            raise RuntimeError(f"DSPex gave {load.wrong} wrong answers, such as {load.example}")
        found.append(server.memory_mb())
    return found
