"""A model whose reply takes for ever to read costs its own caller the time limit, and nobody else anything."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.service import Service, config, running_service

PROGRAMS = """\
- {name: qa, signature: "question -> answer: list[int]", timeout_s: 3}
- {name: slow, signature: "question -> answer: list[int]"}"""
REPLY = "[[ ## answer ## ]]\n[" + '"a ' * 133_000


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all services here, so that the programs are compiled once."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture
def hostile(simulator: RunningSimulator) -> RunningSimulator:
    calm = {"contains": "calm", "text": "[[ ## answer ## ]]\n[1, 2]"}
    simulator.control("script", {"rules": [calm, {"text": REPLY}]})
    return simulator


def configured(hostile: RunningSimulator, extra: str = "") -> str:
    """With room for the whole of a long reply: the simulator ends it at the limit of tokens."""
    return config(hostile.base_url, PROGRAMS, extra).replace("max_tokens: 1000", "max_tokens: 1000000")


def readers(service: Service) -> list[psutil.Process]:
    try:
        children = psutil.Process(service.process.pid).children()
        return [one for one in children if "dspex.providers.reply_reader" in one.cmdline()]
    except psutil.Error:
        return []


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_only_its_own_caller_waits(directory: Path, hostile: RunningSimulator) -> None:
    with (
        running_service(directory, configured(hostile)) as service,
        service.client() as client,
        ThreadPoolExecutor() as pool,
    ):
        # The first one loads the framework.
        assert client.get("/health").status_code == 200
        started = time.monotonic()
        asking = [pool.submit(service.predict, "qa", {"question": f"Which {one}?"}) for one in range(6)]
        wait_for(lambda: readers(service))
        waits = []
        while not all(one.done() for one in asking):
            before = time.monotonic()
            assert client.get("/health").status_code == 200
            waits.append(time.monotonic() - before)
            time.sleep(0.02)
        calm = service.predict("qa", {"question": "calm"})
        assert calm.json()["outputs"] == {"answer": [1, 2]}
        answers = [one.result() for one in asking]
        assert {(one.status_code, one.json()["code"]) for one in answers} == {(504, "reply_too_hard_to_read")}
        assert 3 <= time.monotonic() - started < 30
        # Most of a slow one is the machine's other work; the event loop itself is held up for milliseconds.
        assert sorted(waits)[len(waits) // 2] < 0.5
        assert max(waits) < 3
        wait_for(lambda: not readers(service))


def test_sigterm_is_obeyed_and_leaves_nobody_behind(directory: Path, hostile: RunningSimulator) -> None:
    declared = configured(hostile, "server: {drain_s: 1}")
    with running_service(directory, declared) as service, ThreadPoolExecutor() as pool:
        waiting = pool.submit(service.predict, "slow", {"question": "Which?"})
        wait_for(lambda: readers(service))
        left = readers(service)
        started = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started < 20
        assert waiting.result().json()["code"] == "node_stopping"
        _, alive = psutil.wait_procs(left, timeout=5)
        assert alive == []


def test_kill_9_leaves_nobody_behind(directory: Path, hostile: RunningSimulator) -> None:
    with (
        running_service(directory, configured(hostile)) as service,
        ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(service.predict, "slow", {"question": "Which?"})
        wait_for(lambda: readers(service))
        left = readers(service)
        os.kill(service.process.pid, signal.SIGKILL)
        assert waiting.exception() is not None
        _, alive = psutil.wait_procs(left, timeout=10)
        assert alive == []
