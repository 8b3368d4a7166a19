"""Which functions the serving process spends its time in; of its main thread, not of the database's."""

import pstats

import uvloop

from benchmarks.bench import Bench, target, wait_until_right
from benchmarks.load import run_load
from benchmarks.processes import Server, free_port
from benchmarks.uncached import CALLERS

SHOWN = 40


def run_profile(bench: Bench, requests: int) -> None:
    """Prints the functions with the most time of their own."""
    with bench.serving("dspex"):
        pass  # Compiled before: the profile is of serving only.
    file, port = bench.directory / "dspex.profile", free_port()
    arguments = ["-m", "benchmarks.profiled", str(file), *bench.dspex_arguments(port)]
    with Server(
        arguments, port, bench.cores.server, bench.directory / "dspex.log", bench.environment
    ) as server:
        wait_until_right(server, target("dspex", port))
        uvloop.run(run_load(target("dspex", port), CALLERS, requests=requests))
    pstats.Stats(str(file)).sort_stats("tottime").print_stats(SHOWN)
