"""From starting the process to its first right answer, against what `import dspy` alone takes."""

import statistics
import subprocess
import sys
import time

import psutil

from benchmarks.bench import NAMES, Bench, target, wait_until_right
from benchmarks.processes import pin
from benchmarks.results import Outcome, Rows, at_most


def time_import(bench: Bench) -> float:
    """Seconds of `python -c "import dspy"`."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", "import dspy"], env=bench.environment)
    pin(psutil.Process(process.pid), bench.cores.server)
    if process.wait() != 0:
        raise RuntimeError("import dspy failed")
    return time.perf_counter() - started


def time_start(bench: Bench, candidate: str) -> float:
    """Seconds until the first right answer."""
    started = time.perf_counter()
    with bench.start(candidate) as server:
        wait_until_right(server, target(candidate, server.port))
        return time.perf_counter() - started


def run(bench: Bench) -> Outcome:
    rounds = 1 if bench.quick else 5
    names = {"import": 'python -c "import dspy"', "dspex": NAMES["dspex"], "dspy": NAMES["dspy"]}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name, found in seconds.items():
            one = time_import(bench) if name == "import" else time_start(bench, name)
            if number:
                # The first round fills the file cache and lets DSPex compile.
                found.append(one)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    rows = [
        (names[name], f"{value:.2f}", f"{value / medians['import']:.2f}") for name, value in medians.items()
    ]
    title = f"Start to first answer, programs compiled (medians of {rounds} alternating rounds)"
    checks = [at_most("start to first answer / import dspy", medians["dspex"] / medians["import"], 0.7)]
    return Outcome([Rows(title, ("", "seconds", "x import dspy"), rows)], medians, checks)
