"""What all parts share: the model, a directory with DSPex's configuration, how each candidate is started."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import uvloop
import yaml

from benchmarks.cases import (
    ANSWER,
    DOWN,
    MANY,
    MANY_STREAMS,
    PACES,
    SLOW_CALLERS,
    SLOW_MS,
    TRIAGE,
    Case,
    Target,
)
from benchmarks.load import ask_once, run_load
from benchmarks.processes import (
    KEY_VARIABLE,
    Cores,
    Server,
    child_environment,
    choose_cores,
    free_port,
    pinned,
)

CANDIDATES = ("dspex", "dspy", "bare")
NAMES = {
    "dspex": "DSPex",
    "dspy": "FastAPI + dspy.Predict",
    "dspy, tuned": "FastAPI + dspy.Predict, tuned",
    "bare": "bare ASGI + one HTTP call",
}


@dataclass(frozen=True, slots=True)
class Bench:
    """`directory` holds dspex.yaml, DSPex's data and the logs; `quick` asks for short runs."""

    directory: Path
    lm_port: int
    cores: Cores
    quick: bool

    @property
    def config(self) -> Path:
        return self.directory / "dspex.yaml"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def environment(self) -> dict[str, str]:
        return child_environment(self.directory / "bytecode")

    def dspex_arguments(self, port: int) -> list[str]:
        return ["serve", "--config", str(self.config), "--port", str(port), "--data-dir", str(self.data)]

    def start(self, candidate: str, environment: Mapping[str, str] | None = None) -> Server:
        """Started, not yet ready."""
        port = free_port()
        if candidate == "dspex":
            arguments = ["-m", "dspex", *self.dspex_arguments(port)]
        else:
            arguments = ["-m", f"benchmarks.servers.{candidate}_server", str(port), str(self.lm_port)]
        log = self.directory / f"{candidate}.log"
        return Server(arguments, port, self.cores.server, log, self.environment | dict(environment or {}))

    @contextmanager
    def serving(self, candidate: str, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
        """Started, ready and warmed up.

        DSPex is probed first, as an orchestrator does: the first `/ready` loads the whole interface.
        """
        with self.start(candidate, environment) as server:
            wait_until_right(server, target(candidate, server.port))
            if candidate == "dspex":
                probe(server.port)
            uvloop.run(run_load(target(candidate, server.port), 16, requests=200))
            yield server


def target(candidate: str, port: int, case: Case = ANSWER, *, slow: bool = False) -> Target:
    name = "slow" if slow else case.name
    if candidate == "dspex":
        return Target(candidate, port, f"/v1/programs/{name}/predict", case, wrapped=True)
    return Target(candidate, port, f"/{name}", case)


def probe(port: int) -> None:
    """Raises HTTPError unless the node lives and is ready."""
    for path in ("/health", "/ready"):
        urlopen(f"http://127.0.0.1:{port}{path}", timeout=30).close()


def wait_until_right(server: Server, wanted: Target, limit_s: float = 120.0) -> None:
    """Returns after the first right answer. Raises RuntimeError when the server dies or takes too long."""
    problem: str | None = "nothing listens"
    started = time.perf_counter()
    while time.perf_counter() - started < limit_s:
        server.check_alive()
        try:
            problem = uvloop.run(ask_once(wanted))
        except OSError:
            time.sleep(0.002)
            continue
        if problem is None:
            return
        time.sleep(0.05)
    raise RuntimeError(f"no right answer within {limit_s:g} s, but {problem}; see {server.log}")


@contextmanager
def open_bench(*, quick: bool) -> Iterator[Bench]:
    """Starts the model and writes the configuration; the first DSPex to start compiles for the others."""
    cores = choose_cores()
    with pinned(cores.others), TemporaryDirectory(prefix="dspex-bench-") as name:
        directory, port = Path(name), free_port()
        bench = Bench(directory, port, cores, quick)
        bench.config.write_text(yaml.safe_dump(_configuration(port), sort_keys=False))
        log = directory / "lm.log"
        with Server(["-m", "benchmarks.canned_lm", str(port)], port, cores.others, log, bench.environment):
            yield bench


def _configuration(lm_port: int) -> dict[str, object]:
    url = f"http://127.0.0.1:{lm_port}"
    model = {
        "model": "openai/benchmark",
        "env": KEY_VARIABLE,
        "temperature": 0.0,
        "max_tokens": 1000,
        "max_connections": SLOW_CALLERS,
        "pricing": {"input_per_million": 0.15, "output_per_million": 0.6},
    }
    return {
        "models": {
            "default": "fast",
            "registry": {
                "fast": model | {"api_base": f"{url}/v1"},
                "slow": model | {"api_base": f"{url}/delay/{SLOW_MS}/v1"},
                **{
                    pace.name: model | {"api_base": f"{url}{pace.path}/v1", "max_connections": MANY_STREAMS}
                    for pace in (*PACES, MANY)
                },
                # Nothing listens there, and its breaker stays open once it opened.
                DOWN: model
                | {
                    "api_base": f"http://127.0.0.1:{free_port()}/v1",
                    "retries": {"attempts": 1},
                    "breaker": {"open_s": 3600},
                },
            },
        },
        "programs": [
            *({"name": case.name, "signature": case.signature} for case in (ANSWER, TRIAGE)),
            {"name": "slow", "signature": ANSWER.signature, "model": "slow"},
            *(
                {"name": pace.name, "signature": ANSWER.signature, "model": pace.name}
                for pace in (*PACES, MANY)
            ),
            {"name": DOWN, "signature": ANSWER.signature, "model": DOWN},
        ],
    }
