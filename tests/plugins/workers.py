"""A real `dspex work` in a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

START_S = 60.0


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """`log` is what it wrote to standard error."""

    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def running_worker(
    directory: Path, *arguments: str, environment: Mapping[str, str] | None = None, name: str = "work"
) -> Iterator[WorkerProcess]:
    """On the dspex.yaml of the directory, ready to take jobs."""
    log_path = directory / f"{name}.log"
    clean = {
        one: value for one, value in os.environ.items() if not one.startswith(("DSPEX_", "DATABASE_URL"))
    }
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dspex", "work", *arguments],
            cwd=directory,
            stderr=log,
            stdout=log,
            env=clean | dict(environment or {}),
            start_new_session=True,
        )
    worker = WorkerProcess(process, log_path)
    try:
        deadline = time.monotonic() + START_S
        while "worker_started" not in worker.log:
            assert process.poll() is None, f"the worker ended:\n{worker.log}"
            assert time.monotonic() < deadline, f"the worker did not start:\n{worker.log}"
            time.sleep(0.05)
        yield worker
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
