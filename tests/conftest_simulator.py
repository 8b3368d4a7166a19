"""A running simulator for tests: import `simulator` and `simulator_process` from here."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True, slots=True)
class RunningSimulator:
    """`base_url` ends with /v1, as an OpenAI-compatible client wants it."""

    base_url: str

    def control(self, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """POST the body to a control address, or GET it when there is none."""
        request = urllib.request.Request(  # noqa: S310 - the address is our own server's
            self.base_url.removesuffix("/v1") + f"/_simulator/{name}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
            answer: dict[str, Any] = json.load(reply)
        return answer

    def calls(self) -> int:
        """How many chat completions were asked for since the last reset."""
        return int(self.control("calls")["calls"])


@contextmanager
def running_simulator(*arguments: str) -> Iterator[RunningSimulator]:
    """A server of one's own, with further command line options."""
    command = [sys.executable, "-m", "dspex.providers.language_models.simulator", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        assert base_url.startswith("http://127.0.0.1:"), "the simulator did not start"
        yield RunningSimulator(base_url)
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture(scope="session")
def simulator_process() -> Iterator[RunningSimulator]:
    with running_simulator() as running:
        yield running


@pytest.fixture
def simulator(simulator_process: RunningSimulator) -> RunningSimulator:
    """The shared server, reset: no script, no faults, counts at 0."""
    simulator_process.control("reset", {})
    return simulator_process
