"""What a worker pool adds to DSPy in process: CPU of node and workers together, 16 callers, a model without delay."""

import json
import statistics
from urllib.request import urlopen

import yaml

from benchmarks.bench import NAMES, Bench, target, wait_until_right
from benchmarks.cases import ANSWER, Target
from benchmarks.processes import Server, free_port
from benchmarks.results import Outcome, Rows, at_most
from benchmarks.uncached import CALLERS, Sample, measure, median

POOLED = "pooled"


def run(bench: Bench) -> Outcome:
    rounds, seconds = (2, 1.0) if bench.quick else (7, 3.0)
    samples: dict[str, list[Sample]] = {}
    with _node(bench) as node, bench.serving("dspy") as dspy:
        ways = {
            "dspy": (dspy, target("dspy", dspy.port)),
            POOLED: (
                node,
                Target("dspex", node.port, f"/v1/programs/{POOLED}/predict", ANSWER, wrapped=True),
            ),
        }
        wait_until_right(node, ways[POOLED][1])
        for server, wanted in ways.values():
            measure(server, wanted, CALLERS, 1.0)
        for _ in range(rounds):
            for name, (server, wanted) in ways.items():
                samples.setdefault(name, []).append(measure(server, wanted, CALLERS, seconds))
        idle_mb = _worker_mb(node.port)
    medians = {name: median(found) for name, found in samples.items()}
    return _outcome(medians, idle_mb, rounds, seconds)


def _node(bench: Bench) -> Server:
    """DSPex with the small case in a pool of one worker, so that one core does all the work on both sides."""
    configuration = yaml.safe_load(bench.config.read_text())
    configuration["programs"] = [{"name": POOLED, "signature": ANSWER.signature, "executor": "pool"}]
    configuration["pools"] = {"general": {"workers": 1}}
    configuration["cache"] = {"policy": {"mode": "off"}}
    path = bench.directory / "pool.yaml"
    path.write_text(yaml.safe_dump(configuration, sort_keys=False))
    port = free_port()
    arguments = [
        "serve",
        "--config",
        str(path),
        "--port",
        str(port),
        "--data-dir",
        str(bench.directory / "pool"),
    ]
    log = bench.directory / "pool.log"
    return Server(["-m", "dspex", *arguments], port, bench.cores.server, log, bench.environment)


def _worker_mb(port: int) -> float:
    """What a worker has of its own, in 10^6 bytes: the rest it shares with the process that it was forked from."""
    with urlopen(f"http://127.0.0.1:{port}/v1/pools", timeout=30) as answer:
        (pool,) = json.load(answer)["data"]
    own = []
    for worker in pool["workers"]:
        with open(f"/proc/{worker['pid']}/smaps_rollup", encoding="ascii") as rollup:
            found = [line.split() for line in rollup if line.startswith("Private_")]
        own.append(sum(int(fields[1]) for fields in found) * 1024 / 1e6)
    return statistics.mean(own)


def _outcome(medians: dict[str, Sample], idle_mb: float, rounds: int, seconds: float) -> Outcome:
    pooled, alone = medians[POOLED], medians["dspy"]
    names = {"dspy": NAMES["dspy"], POOLED: "DSPex, a pool of one worker"}
    rows = [
        (
            names[name],
            f"{one.cpu_ms:.3f}",
            f"{one.cpu_ms / alone.cpu_ms:.2f}",
            f"{one.per_s:.0f}",
            f"{_mean_ms(one):.1f}",
            f"{one.p50_ms:.1f}",
            f"{one.p95_ms:.1f}",
        )
        for name, one in medians.items()
    ]
    title = f"Real DSPy, {CALLERS} callers (medians of {rounds} alternating rounds of {seconds:g} s)"
    columns = ("", "CPU ms/request", "x DSPy", "requests/s", "mean ms", "p50 ms", "p95 ms")
    figures = {"pooled": _figures(pooled), "dspy": _figures(alone), "worker_mb": idle_mb}
    rows.append((f"memory of a worker's own: {idle_mb:.0f} MB", "", "", "", "", "", ""))
    return Outcome(
        [Rows(title, columns, rows)],
        figures,
        [
            at_most("pool over DSPy in process, CPU ms per request", pooled.cpu_ms - alone.cpu_ms, 1.0),
            at_most("pool over DSPy in process, mean ms", _mean_ms(pooled) - _mean_ms(alone), 2.0),
        ],
    )


def _mean_ms(sample: Sample) -> float:
    """Of callers who always wait for an answer. A median would compare the shapes of two distributions."""
    return CALLERS / sample.per_s * 1000


def _figures(sample: Sample) -> dict[str, float]:
    return {name: getattr(sample, name) for name in ("cpu_ms", "per_s", "p50_ms", "p95_ms", "p99_ms")}
