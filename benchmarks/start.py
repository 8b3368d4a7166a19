"""From starting the process to its first right answer, against what `import dspy` alone takes."""

import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import psutil

from benchmarks.bench import NAMES, Bench, target, wait_until_right
from benchmarks.processes import pin
from benchmarks.results import Outcome, Rows, at_most


@dataclass(frozen=True, slots=True)
class Start:
    """`cpu_s` is of the process and its children; unlike the time it took, others on the machine hardly change it."""

    seconds: float
    cpu_s: float


def time_import(bench: Bench) -> Start:
    """`python -c "import dspy"`."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", "import dspy"], env=bench.environment)
    pin(psutil.Process(process.pid), bench.cores.server)
    _, process.returncode, used = os.wait4(process.pid, 0)
    if process.returncode != 0:
        raise RuntimeError("import dspy failed")
    return Start(time.perf_counter() - started, used.ru_utime + used.ru_stime)


def time_start(bench: Bench, candidate: str) -> Start:
    """Until the first right answer."""
    started = time.perf_counter()
    with bench.start(candidate) as server:
        wait_until_right(server, target(candidate, server.port))
        return Start(time.perf_counter() - started, server.cpu_s())


def run(bench: Bench) -> Outcome:
    rounds = 1 if bench.quick else 5
    names = {"import": 'python -c "import dspy"', "dspex": NAMES["dspex"], "dspy": NAMES["dspy"]}
    starts: dict[str, list[Start]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name, found in starts.items():
            one = time_import(bench) if name == "import" else time_start(bench, name)
            if number:
                # The first round fills the file cache and lets DSPex compile.
                found.append(one)
    medians = {
        name: Start(
            statistics.median(one.seconds for one in found), statistics.median(one.cpu_s for one in found)
        )
        for name, found in starts.items()
    }
    base, ours = medians["import"], medians["dspex"]
    rows = [
        (
            names[name],
            f"{one.seconds:.2f}",
            f"{one.seconds / base.seconds:.2f}",
            f"{one.cpu_s:.2f}",
            f"{one.cpu_s / base.cpu_s:.2f}",
        )
        for name, one in medians.items()
    ]
    title = f"Start to first answer, programs compiled (medians of {rounds} alternating rounds)"
    columns = ("", "seconds", "x import dspy", "CPU seconds", "x import dspy")
    checks = [at_most("start to first answer / import dspy", ours.seconds / base.seconds, 0.7)]
    return Outcome([Rows(title, columns, rows)], {name: asdict(one) for name, one in medians.items()}, checks)
