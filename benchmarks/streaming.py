"""What a streamed answer costs: CPU for each piece, how late a piece is, and a thousand streams on one core."""

import itertools
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import uvloop

from benchmarks.bench import NAMES, Bench
from benchmarks.cases import ANSWER, MANY, MANY_STREAMS, PACES, Pace
from benchmarks.processes import Server
from benchmarks.results import Outcome, Rows, at_most
from benchmarks.stream_load import Streams, percentile, read_streams

CALLERS = 100
_numbers = itertools.count(1_000_000)


@dataclass(frozen=True, slots=True)
class Sample:
    cpu_s: float
    streams: Streams


def measure(server: Server, candidate: str, pace: Pace, callers: int, spread_s: float) -> Sample:
    """Raises RuntimeError at the first stream that lacks a piece."""
    inputs = [ANSWER.inputs(next(_numbers)) for _ in range(callers)]
    if candidate == "dspex":
        path, bodies = f"/v1/programs/{pace.name}/predict", [{"inputs": one} for one in inputs]
    else:
        path, bodies = f"/{pace.name}", [dict(one) for one in inputs]
    before = server.cpu_s()
    read = uvloop.run(read_streams(server.port, path, bodies, pace.pieces, spread_s))
    cpu_s = server.cpu_s() - before
    if read.wrong:
        raise RuntimeError(f"{candidate} gave {read.wrong} wrong streams, such as {read.example}")
    return Sample(cpu_s, read)


def _piece_us(few: Sample, more: Sample) -> float:
    """From streams that differ in length alone: what a request costs falls out."""
    return (more.cpu_s - few.cpu_s) / (more.streams.pieces - few.streams.pieces) * 1e6


def run(bench: Bench) -> Outcome:
    rounds = 2 if bench.quick else 5
    short, long = PACES
    costs: dict[str, list[float]] = {"dspex": [], "bare": []}
    lags: dict[str, list[float]] = {"dspex": [], "bare": []}
    first: dict[str, list[float]] = {"dspex": [], "bare": []}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(bench.serving(name)) for name in costs}
        for name, server in servers.items():
            measure(server, name, short, CALLERS, 0.1)
        for _ in range(rounds):
            for name, server in servers.items():
                few, more = (measure(server, name, pace, CALLERS, pace.interval_s) for pace in (short, long))
                costs[name].append(_piece_us(few, more))
                lags[name].append(percentile(more.streams.lags, 50))
            for name, server in servers.items():
                alone = measure(server, name, short, 4, 0.05)
                first[name].append(percentile(alone.streams.first, 50))
        server = servers["dspex"]
        idle_mb = server.memory_mb()
        many = measure(server, "dspex", MANY, MANY_STREAMS, 2.0)
        many_mb = server.memory_mb() - idle_mb
    return _outcome(costs, lags, first, many, many_mb, rounds)


def of(figures: dict[str, list[float]], name: str) -> float:
    return median(figures[name])


def _outcome(
    costs: dict[str, list[float]],
    lags: dict[str, list[float]],
    first: dict[str, list[float]],
    many: Sample,
    many_mb: float,
    rounds: int,
) -> Outcome:
    rows = [
        (
            NAMES[name],
            f"{of(costs, name):.1f}",
            f"{of(lags, name):.2f}",
            f"{of(first, name):.2f}",
        )
        for name in costs
    ]
    overhead_us = of(costs, "dspex") - of(costs, "bare")
    read = many.streams
    duration_s = MANY.pieces * MANY.interval_s
    thousand = (
        f"{MANY_STREAMS}",
        f"{MANY_STREAMS / MANY.interval_s:.0f}",
        f"{many.cpu_s / read.pieces * 1e6:.1f}",
        f"{many.cpu_s / duration_s * 100:.0f}",
        f"{percentile(read.lags, 50):.1f}",
        f"{percentile(read.lags, 95):.1f}",
        f"{percentile(read.lags, 99):.1f}",
        f"{many_mb / MANY_STREAMS * 1000:.0f}",
    )
    title = f"Streams, {CALLERS} at once, a piece every {PACES[0].interval_s * 1000:g} ms (medians of {rounds} rounds)"
    columns = ("", "CPU us/piece", "lag p50 ms", "first piece, 4 at once, p50 ms")
    tables = [
        Rows(title, columns, rows),
        Rows(
            f"A thousand streams on one core, a piece every {MANY.interval_s * 1000:g} ms each",
            (
                "streams",
                "pieces/s",
                "CPU us/piece",
                "% of a core",
                "lag p50 ms",
                "p95 ms",
                "p99 ms",
                "KB a stream",
            ),
            [thousand],
        ),
    ]
    checks = [
        at_most("streaming, CPU us a piece over the bare server's", overhead_us, 50),
        at_most("streaming, ms the first piece is late", of(first, "dspex"), 5),
        at_most("a thousand streams, % of a core", many.cpu_s / duration_s * 100, 100),
    ]
    figures = {
        "piece_us": {name: of(costs, name) for name in costs},
        "lag_p50_ms": {name: of(lags, name) for name in lags},
        "first_p50_ms": {name: of(first, name) for name in first},
        "thousand": {
            "cpu_us_a_piece": many.cpu_s / read.pieces * 1e6,
            "percent_of_a_core": many.cpu_s / duration_s * 100,
            "lag_p50_ms": percentile(read.lags, 50),
            "lag_p95_ms": percentile(read.lags, 95),
            "kb_a_stream": many_mb / MANY_STREAMS * 1000,
        },
    }
    return Outcome(tables, figures, checks)
