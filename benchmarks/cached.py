"""What a prediction from the cache costs: CPU time of the serving process, 16 callers, a hundred different requests."""

from contextlib import ExitStack
from dataclasses import asdict, replace

import uvloop

from benchmarks.bench import CANDIDATES, NAMES, Bench, target
from benchmarks.cases import ANSWER, TRIAGE, Target
from benchmarks.load import run_load
from benchmarks.processes import Server
from benchmarks.results import Outcome, Rows, at_most
from benchmarks.uncached import CALLERS, Sample, measure, median

REQUESTS = 100


def run(bench: Bench) -> Outcome:
    rounds, seconds = (2, 1.0) if bench.quick else (7, 3.0)
    samples: dict[str, list[Sample]] = {}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(bench.serving(name)) for name in CANDIDATES}
        contenders = _contenders(servers)
        for _, wanted in contenders.values():
            # Fills the cache.
            uvloop.run(run_load(wanted, CALLERS, requests=2 * REQUESTS))
        for _ in range(rounds):
            for name, (server, wanted) in contenders.items():
                samples.setdefault(name, []).append(measure(server, wanted, CALLERS, seconds))
    medians = {name: median(found) for name, found in samples.items()}
    ours = medians["answer: DSPex"].cpu_ms
    rows = [
        (
            name,
            f"{sample.cpu_ms:.3f}",
            f"{sample.cpu_ms / ours:.2f}",
            f"{sample.per_s:.0f}",
            f"{sample.p50_ms:.1f}",
            f"{sample.p95_ms:.1f}",
            f"{sample.p99_ms:.1f}",
        )
        for name, sample in medians.items()
    ]
    title = f"Prediction from the cache, {CALLERS} callers (medians of {rounds} alternating rounds of {seconds:g} s)"
    columns = ("", "CPU ms/request", "x DSPex", "requests/s", "p50 ms", "p95 ms", "p99 ms")
    return Outcome(
        [Rows(title, columns, rows)],
        {name: asdict(sample) for name, sample in medians.items()},
        [at_most("from the cache, CPU ms per request", ours, 0.25)],
    )


def _contenders(servers: dict[str, Server]) -> dict[str, tuple[Server, Target]]:
    def contender(name: str, **changes: object) -> tuple[Server, Target]:
        wanted = target(name, servers[name].port)
        return servers[name], replace(wanted, repeated=REQUESTS, **changes)  # type: ignore[arg-type]

    triage = target("dspex", servers["dspex"].port, TRIAGE)
    return {
        f"{ANSWER.name}: bare ASGI + a dict": contender("bare", path="/cached"),
        f"{ANSWER.name}: {NAMES['dspex']}": contender("dspex"),
        f"{TRIAGE.name}: {NAMES['dspex']}": (servers["dspex"], replace(triage, repeated=REQUESTS)),
        f"{ANSWER.name}: {NAMES['dspy']}, its own cache": contender("dspy", path="/cached"),
    }
