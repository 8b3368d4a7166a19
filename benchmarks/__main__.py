"""python -m benchmarks [PART ...] [--quick] [--check], or: python -m benchmarks profile [--requests N]

Prints a table for each part and writes benchmarks/results.json. Exits with 0 whatever the figures are,
with --check with 1 when a target is missed.
"""

import argparse
import datetime
import json
import platform
import shlex
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks import (
    breaker,
    cached,
    evaluation,
    footprint,
    gateway_steps,
    journal,
    memory,
    pool,
    slow,
    start,
    steps,
    streaming,
    uncached,
)
from benchmarks.bench import Bench, open_bench
from benchmarks.profile import run_profile
from benchmarks.results import Outcome, show

PARTS: dict[str, Callable[[Bench], Outcome]] = {
    "uncached": uncached.run,
    "cached": cached.run,
    "slow": slow.run,
    "streaming": streaming.run,
    "breaker": breaker.run,
    "memory": memory.run,
    "start": start.run,
    "parts": steps.run,
    "steps": gateway_steps.run,
    "footprint": footprint.run,
    "pool": pool.run,
    "evaluation": evaluation.run,
    "journal": journal.run,
}
PACKAGES = ("dspy", "lm15", "aiohttp", "fastapi", "orjson", "pydantic", "sqlalchemy", "uvicorn", "uvloop")
RESULTS = Path(__file__).parent / "results.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What a request costs.")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}, or profile [all parts]"
    )
    parser.add_argument(
        "--quick", action="store_true", help="short runs: whether it works, not how fast it is"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--requests", type=int, default=5000, help="how many requests are profiled [5000]")
    parser.add_argument("--cached", action="store_true", help="profile predictions from the cache")
    given = parser.parse_args()
    if unknown := [part for part in given.parts if part not in PARTS and part != "profile"]:
        parser.error(f"there is no part {', '.join(unknown)}; choose from {', '.join(PARTS)}, profile")
    with open_bench(quick=given.quick) as bench:
        if given.parts == ["profile"]:
            run_profile(bench, given.requests, cached=given.cached)
            return 0
        return _measure(bench, [part for part in given.parts if part in PARTS] or list(PARTS), given.check)


def _measure(bench: Bench, parts: list[str], check: bool) -> int:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    about = _about(bench)
    for name, value in about.items():
        console.print(f"{name}: {value}")
    console.print()
    figures, missed = {}, False
    for part in parts:
        outcome = PARTS[part](bench)
        show(console, outcome)
        figures[part] = outcome.figures
        missed = missed or any(not one.met for one in outcome.checks)
        RESULTS.write_text(json.dumps({"about": about, "parts": figures}, indent=2) + "\n")
    return 1 if missed and check else 0


def _about(bench: Bench) -> dict[str, str]:
    pinned = f"server on core {bench.cores.server[0]}" if bench.cores.server else "not pinned"
    return {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} cores, {pinned}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


if __name__ == "__main__":
    sys.exit(main())
