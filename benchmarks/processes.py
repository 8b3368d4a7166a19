"""Server processes: pinned to a core, waited for, their CPU time and memory read, stopped."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

ROOT = Path(__file__).parent.parent
KEY_VARIABLE = "BENCHMARK_KEY"


@dataclass(frozen=True, slots=True)
class Cores:
    """`server` is for the process that is measured, `others` for the load generator and the model.

    Both empty where processes can't be pinned (macOS).
    """

    server: tuple[int, ...]
    others: tuple[int, ...]


def choose_cores() -> Cores:
    """The last core for the server, the rest for everything else; a single core is shared."""
    if not hasattr(os, "sched_getaffinity"):
        return Cores((), ())
    available = sorted(os.sched_getaffinity(0))
    return Cores((available[-1],), tuple(available[:-1]) or (available[-1],))


def pin(process: psutil.Process, cores: tuple[int, ...]) -> None:
    if cores:
        process.cpu_affinity(list(cores))


@contextmanager
def pinned(cores: tuple[int, ...]) -> Iterator[None]:
    """This process, until the end of the block."""
    process = psutil.Process()
    before = tuple(process.cpu_affinity() or ()) if cores else ()
    pin(process, cores)
    try:
        yield
    finally:
        pin(process, before)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A Python process that serves; its output goes to `log`."""

    def __init__(
        self,
        arguments: Sequence[str],
        port: int,
        cores: tuple[int, ...],
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.port = port
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=dict(environment),
                stdout=output,
                stderr=output,
            )
        self._process = psutil.Process(self._popen.pid)
        pin(self._process, cores)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check_alive(self) -> None:
        """Raises RuntimeError with the end of the log when the process is gone."""
        if (code := self._popen.poll()) is not None:
            raise RuntimeError(
                f"the server ended with {code}:\n{self.log.read_text(errors='replace')[-3000:]}"
            )

    def cpu_s(self) -> float:
        """User and system seconds of the process and its children so far."""
        return sum(sum(one.cpu_times()[:2]) for one in self._all())

    def memory_mb(self) -> float:
        """Resident memory of the process and its children, in 10^6 bytes."""
        return float(sum(one.memory_info().rss for one in self._all())) / 1e6

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def stop(self) -> None:
        """By SIGINT, which lets a profile be written; by force when that takes longer than 15 s."""
        self._popen.send_signal(signal.SIGINT)
        try:
            self._popen.wait(15)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def child_environment(bytecode: Path) -> dict[str, str]:
    """This process's, with the benchmarks and the project importable and nothing that configures DSPex.

    Compiled modules are kept in `bytecode`: an installed service has them, a fresh virtual environment or one
    with PYTHONDONTWRITEBYTECODE has not, and starts would be measured that mostly compile.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DSPEX_")}
    for name in ("DATABASE_URL", "PYTHONDONTWRITEBYTECODE"):
        kept.pop(name, None)
    path = [str(ROOT), str(ROOT / "src"), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONPYCACHEPREFIX": str(bytecode),
        KEY_VARIABLE: "benchmark",
        # Keeps DSPy from fetching a price list over the network.
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    }
