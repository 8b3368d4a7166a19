"""What a prediction costs: CPU time of the serving process, 16 callers, a model without delay."""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

import uvloop

from benchmarks.bench import CANDIDATES, NAMES, Bench, target
from benchmarks.cases import ANSWER, TRIAGE, Target
from benchmarks.load import run_load
from benchmarks.processes import Server
from benchmarks.results import Outcome, Rows, at_most

CALLERS = 16


@dataclass(frozen=True, slots=True)
class Sample:
    cpu_ms: float
    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def measure(server: Server, wanted: Target, callers: int, seconds: float, *, spread_s: float = 0.0) -> Sample:
    """One round. Raises RuntimeError at the first wrong answer: figures of failing servers mean nothing."""
    before = server.cpu_s()
    load = uvloop.run(run_load(wanted, callers, seconds=seconds, spread_s=spread_s))
    cpu_s = server.cpu_s() - before
    if load.wrong:
        raise RuntimeError(f"{wanted.candidate} gave {load.wrong} wrong answers, such as {load.example}")
    percentiles = (load.percentile_ms(percent) for percent in (50, 95, 99))
    return Sample(cpu_s * 1000 / load.total, load.per_s, *percentiles)


def median(samples: Sequence[Sample]) -> Sample:
    """Of each figure by itself."""
    columns = zip(*(asdict(sample).values() for sample in samples), strict=True)
    return Sample(*(statistics.median(column) for column in columns))


def run(bench: Bench) -> Outcome:
    rounds, seconds = (2, 1.0) if bench.quick else (7, 3.0)
    samples: dict[tuple[str, str], list[Sample]] = {}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(bench.serving(name)) for name in CANDIDATES}
        targets = _targets(servers)
        for server, wanted in targets.values():
            measure(server, wanted, CALLERS, 0.5)
        for _ in range(rounds):
            # In turn, so that a slow minute of the machine falls on all of them.
            for key, (server, wanted) in targets.items():
                samples.setdefault(key, []).append(measure(server, wanted, CALLERS, seconds))
    return _outcome({key: median(found) for key, found in samples.items()}, rounds, seconds)


def _targets(servers: Mapping[str, Server]) -> dict[tuple[str, str], tuple[Server, Target]]:
    """By name of the contender and of the case. The bare server answers the small case only."""
    keys = [(name, ANSWER) for name in CANDIDATES] + [("dspex", TRIAGE), ("dspy", TRIAGE)]
    targets = {
        (name, case.name): (servers[name], target(name, servers[name].port, case)) for name, case in keys
    }
    tuned = replace(targets["dspy", ANSWER.name][1], path="/tuned")
    return targets | {("dspy, tuned", ANSWER.name): (servers["dspy"], tuned)}


def _outcome(medians: Mapping[tuple[str, str], Sample], rounds: int, seconds: float) -> Outcome:
    dspex = {case: sample.cpu_ms for (name, case), sample in medians.items() if name == "dspex"}
    rows = [
        (
            f"{case}: {NAMES[name]}",
            f"{sample.cpu_ms:.3f}",
            f"{sample.cpu_ms / dspex[case]:.2f}",
            f"{sample.per_s:.0f}",
            f"{sample.p50_ms:.1f}",
            f"{sample.p95_ms:.1f}",
            f"{sample.p99_ms:.1f}",
        )
        for (name, case), sample in sorted(medians.items(), key=lambda one: (one[0][1], one[1].cpu_ms))
    ]
    title = (
        f"Uncached prediction, {CALLERS} callers (medians of {rounds} alternating rounds of {seconds:g} s)"
    )
    columns = ("", "CPU ms/request", "x DSPex", "requests/s", "p50 ms", "p95 ms", "p99 ms")
    figures = {f"{name}/{case}": asdict(sample) for (name, case), sample in medians.items()}
    checks = [at_most("uncached, CPU ms per request", dspex["answer"], 1.0)]
    return Outcome([Rows(title, columns, rows)], figures, checks)
