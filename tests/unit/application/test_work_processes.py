"""The processes that run jobs end with their node, in the time that it has itself."""

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dspex.application import work_processes
from dspex.application.work_processes import WorkProcesses

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
OBEDIENT = "print(1, flush=True); import time; time.sleep(600)"


class Started:
    """Stands for `dspex work`."""

    def __init__(self) -> None:
        self.code = OBEDIENT
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, command: Any, env: Any) -> "subprocess.Popen[bytes]":
        process = _POPEN([sys.executable, "-c", self.code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline()
        self.processes.append(process)
        return process


_POPEN = subprocess.Popen


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    made = Started()
    monkeypatch.setattr(work_processes.subprocess, "Popen", made)
    monkeypatch.setattr(work_processes, "GRACE_S", 0.2)
    yield made
    for one in made.processes:
        one.kill()
        one.communicate()


def test_time_counts_from_when_they_were_told(started: Started) -> None:
    started.code = DEAF
    processes = WorkProcesses(1, str)
    processes.ask()
    processes.tend()
    processes.terminate()
    assert processes._told is not None
    # As if requests had been finished meanwhile, for longer than there is.
    processes._told -= 3600.0
    began = time.monotonic()
    processes.join(3600.0)
    assert started.processes[0].returncode == -9
    # An hour more, if it began only now.
    assert time.monotonic() - began < 600


def test_who_ends_in_time_is_not_killed(started: Started) -> None:
    processes = WorkProcesses(2, str)
    processes.ask()
    processes.tend()
    processes.terminate()
    processes.join(60.0)
    assert [one.returncode for one in started.processes] == [-15, -15]


def test_nobody_is_started_once_they_were_told_to_end(started: Started) -> None:
    processes = WorkProcesses(1, str)
    processes.terminate()
    # A request that is still under way.
    processes.ask()
    processes.tend()
    assert started.processes == []
    processes.join(0.0)
