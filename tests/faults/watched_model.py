"""A model that learns from prompts, served from this process: who tests sees each request the moment it comes."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from msgspec.structs import replace

from dspex.providers.language_models.simulator.app import SimulatorApp
from dspex.providers.language_models.simulator.engine import (
    Outcome,
    SimulatedCall,
    Simulator,
    SimulatorOptions,
)
from dspex.providers.language_models.simulator.faults import Fault, parse_latency


class WatchedModel(Simulator):
    """Counts what each model, by its name, was asked for. The same request has the same answer whenever it comes.

    `faults` strike at a call of a model, counted from 0.
    """

    base_url = ""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.faults: dict[tuple[str, int], Fault] = {}
        self._limited: tuple[str, float] = ("", 0.0)
        self._came = threading.Condition()
        # Long enough for some kills to strike while an answer is waited for.
        super().__init__(SimulatorOptions(teach=True, latency=parse_latency("uniform:0ms-20ms")))

    def answer(self, call: SimulatedCall, body: object = None) -> Outcome:
        outcome = super().answer(call, body)
        name = str(call.model)
        with self._came:
            fault = self.faults.get((name, self.asked[name]))
            self.asked[name] += 1
            self._came.notify_all()
        limited, until = self._limited
        if limited == name and (left := until - time.monotonic()) > 0:
            fault = Fault(kind="rate_limit", retry_after=left)
        return replace(outcome, fault=fault)

    def limit(self, name: str, seconds: float) -> None:
        """That model refuses everything for so long."""
        self._limited = (name, time.monotonic() + seconds)

    def forget(self) -> None:
        self.asked.clear()
        self.faults.clear()
        self.reset()

    def comes_to(self, name: str, calls: int, seconds: float) -> bool:
        """Whether that model has been asked so often within that time."""
        with self._came:
            return self._came.wait_for(lambda: self.asked[name] >= calls, seconds)

    def _count_repetition(self, call: SimulatedCall, key: bytes) -> int:
        # One that was in flight at a kill comes again, and is to be answered as it would have been.
        return 0


@contextmanager
def watched_model() -> Iterator[WatchedModel]:
    model = WatchedModel()
    options: dict[str, Any] = {"lifespan": "off", "log_config": None, "access_log": False, "ws": "none"}
    app = SimulatorApp(model, allow_control=True)
    server = uvicorn.Server(uvicorn.Config(app, port=0, interface="asgi3", **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline, "the model did not start"
        time.sleep(0.01)
    model.base_url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield model
    finally:
        server.should_exit = True
        thread.join(timeout=10)
