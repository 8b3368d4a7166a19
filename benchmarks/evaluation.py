"""An evaluation: examples a second of one process, 64 at once, a model that takes 100 ms; and what an example costs."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.bench import Bench
from benchmarks.cases import ANSWER
from benchmarks.processes import ROOT
from benchmarks.results import Outcome, Rows, at_least

DELAY_MS, CONCURRENCY = 100, 64


@dataclass(frozen=True, slots=True)
class Sample:
    examples: int
    seconds: float
    cpu_s: float


def run(bench: Bench) -> Outcome:
    """CPU is that of a long run less that of a short one: what a start costs is in both."""
    few, many = (64, 640) if bench.quick else (640, 10_000)
    config = _config(bench)
    rows = bench.directory / "rows.jsonl"
    lines = [{"inputs": ANSWER.inputs(number), "outputs": ANSWER.outputs(number)} for number in range(many)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _dspex(bench, "datasets", "load", str(rows), "--config", str(config))
    # The first one compiles the program.
    _evaluate(bench, config, few)
    short, long = _evaluate(bench, config, few), _evaluate(bench, config, many)
    cpu_ms = (long.cpu_s - short.cpu_s) * 1000 / (many - few)
    per_s, ideal = many / long.seconds, CONCURRENCY * 1000 / DELAY_MS
    title = f"Evaluation of {many} examples, {CONCURRENCY} at once, a model of {DELAY_MS} ms"
    columns = ("", "examples/s", "of ideal", "CPU ms/example")
    shown = ("dspex eval run", f"{per_s:.0f}", f"{per_s / ideal:.0%}", f"{cpu_ms:.3f}")
    figures = {"per_s": per_s, "of_ideal": per_s / ideal, "cpu_ms": cpu_ms}
    return Outcome(
        [Rows(title, columns, [shown])], figures, [at_least("evaluation, examples/s", per_s, 0.9 * ideal)]
    )


def _config(bench: Bench) -> Path:
    configuration = yaml.safe_load(bench.config.read_text())
    model = configuration["models"]["registry"]["fast"]
    model["api_base"] = f"http://127.0.0.1:{bench.lm_port}/delay/{DELAY_MS}/v1"
    model["lanes"] = {"evaluation": CONCURRENCY}
    configuration["models"]["registry"] = {"fast": model}
    configuration["programs"] = [{"name": "answer", "signature": ANSWER.signature}]
    configuration["jobs"] = {"evaluation": {"concurrency": CONCURRENCY}}
    configuration["data_dir"] = str(bench.directory / "evaluation")
    path = bench.directory / "evaluation.yaml"
    path.write_text(yaml.safe_dump(configuration, sort_keys=False))
    return path


def _evaluate(bench: Bench, config: Path, examples: int) -> Sample:
    """Raises RuntimeError unless every example got the score 1."""
    arguments = ("answer", "rows", "--limit", str(examples), "--no-cache", "--json", "--config", str(config))
    before = os.times()
    evaluation: dict[str, Any] = json.loads(_dspex(bench, "eval", "run", *arguments))
    after = os.times()
    report = evaluation["result"]
    if (report["scored"], report["mean"]) != (examples, 1.0):
        raise RuntimeError(f"the evaluation came to {report}")
    begun, ended = (datetime.fromisoformat(evaluation[name]) for name in ("started_at", "completed_at"))
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Sample(examples, (ended - begun).total_seconds(), cpu_s)


def _dspex(bench: Bench, *arguments: str) -> bytes:
    command = [sys.executable, "-m", "dspex", *arguments]
    if bench.cores.server:
        command = ["taskset", "-c", ",".join(map(str, bench.cores.server)), *command]
    done = subprocess.run(command, cwd=ROOT, env=bench.environment, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.decode()}")
    # A moment for what the machine does besides, such as writing the file.
    time.sleep(0.1)
    return done.stdout
