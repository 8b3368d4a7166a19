"""What `dspex serve` has imported when its first answer is out, and what that took."""

import re
from collections import defaultdict

from benchmarks.bench import Bench, target, wait_until_right
from benchmarks.results import Outcome, Rows, at_most

_LINE = re.compile(r"^import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)$", re.MULTILINE)
SHOWN = 15
# What serving on SQLite has no need of.
UNWANTED = (
    "dspy",
    "litellm",
    "lm15",
    "dbos",
    "grpc",
    "redis",
    "limits",
    "asyncpg",
    "alembic",
    "sqlalchemy",
    "sentry_sdk",
    "opentelemetry.exporter",
    "genai_prices",
)


def run(bench: Bench) -> Outcome:
    with bench.serving("dspex"):
        pass  # Compiled before: the measured start serves only.
    log = bench.directory / "dspex.log"
    log.write_text("")
    with bench.start("dspex", {"PYTHONPROFILEIMPORTTIME": "1"}) as server:
        wait_until_right(server, target("dspex", server.port))
        lines = [(name, int(own_us)) for own_us, _, name in _LINE.findall(log.read_text(errors="replace"))]
    spent_us: dict[str, int] = defaultdict(int)
    modules: dict[str, int] = defaultdict(int)
    for name, own_us in lines:
        package = name.partition(".")[0]
        spent_us[package] += own_us
        modules[package] += 1
    names = {name for name, _ in lines}
    unwanted = sorted(name for name in UNWANTED if name in names)
    largest = sorted(spent_us, key=lambda package: -spent_us[package])[:SHOWN]
    rows = [(package, f"{spent_us[package] / 1000:.0f}", str(modules[package])) for package in largest]
    rows.append(("all", f"{sum(spent_us.values()) / 1000:.0f}", str(len(lines))))
    rows.append(("loaded without need: " + (", ".join(unwanted) or "nothing"), "", ""))
    title = f"Imports of dspex serve up to its first answer, the {SHOWN} dearest packages (own time)"
    figures = {"total_ms": sum(spent_us.values()) / 1000, "modules": len(lines), "unwanted": unwanted}
    return Outcome(
        [Rows(title, ("package", "ms", "modules"), rows)],
        figures,
        [at_most("packages loaded without need", len(unwanted), 0)],
    )
