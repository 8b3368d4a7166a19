"""Three optimizers at work at once, each on a program with a model of its own, on nodes that can be killed."""

import asyncio
import json
import os
import random
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from dspex.configuration.settings import Settings
from dspex.providers.language_models.simulator.task_tickets import TICKETS
from dspex.providers.language_models.simulator.tasks import task_rows
from dspex.storage.opening import open_database
from tests.faults.watched_model import WatchedModel
from tests.plugins.databases import outside_loop
from tests.plugins.service import Service, running_service

SECONDS = 120
SEARCH: Mapping[str, Any] = {
    "optimizer": "BootstrapFewShotWithRandomSearch",
    "config": {"num_candidate_programs": 2, "max_labeled_demos": 4},
}
MIPRO: Mapping[str, Any] = {
    "optimizer": "MIPROv2",
    "config": {"auto": None, "num_candidates": 3, "num_trials": 4, "minibatch": False},
}
GEPA: Mapping[str, Any] = {"optimizer": "GEPA", "config": {"max_metric_calls": 24}}
# By program, which is the name of its model as well.
OPTIMIZERS = {"search": SEARCH, "mipro": MIPRO, "gepa": GEPA}


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
    return found


def config(model: WatchedModel, extra: str = "") -> str:
    """Answers are found again in the journal alone: there is no cache beside it."""
    models = "\n".join(
        f"    {name}: {{model: openai/{name}, api_base: '{model.base_url}', temperature: 0.0, max_tokens: 200, "
        "timeout_s: 300, pricing: {input_per_million: 0.15, output_per_million: 0.6}}"
        for name in OPTIMIZERS
    )
    programs = "\n".join(
        f'  - {{name: {name}, signature: "{TICKETS.signature}", model: {name}}}' for name in OPTIMIZERS
    )
    return f"""\
models:
  default: search
  registry:
{models}
cache: {{policy: {{mode: "off"}}}}
programs:
{programs}
datasets:
  - {{name: tickets, path: tickets.jsonl, kind: training}}
{extra}
"""


def furnish(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    rows = task_rows(TICKETS, "training", 14)
    lines = [json.dumps({"inputs": row.inputs, "outputs": row.outputs}) for row in rows]
    (directory / "tickets.jsonl").write_text("\n".join(lines), encoding="utf-8")


@dataclass(frozen=True)
class Undisturbed:
    digest: str
    calls: int


class Node:
    """`dspex serve` in a directory, with the address of the database where that is not a file there."""

    def __init__(
        self, directory: Path, model: WatchedModel, extra: str, environment: Mapping[str, str]
    ) -> None:
        self.model = model
        self._directory = directory
        self._config = config(model, extra)
        self._environment = environment
        self.database = environment.get("DATABASE_URL") or f"sqlite:///{directory}/.dspex/dspex.db"
        self._process = ExitStack()
        self.service: Service
        self.client: httpx.Client
        furnish(directory)

    def start(self) -> None:
        started = running_service(self._directory, self._config, environment=self._environment)
        self.service = self._process.enter_context(started)
        self.client = self._process.enter_context(self.service.client())

    def close(self) -> None:
        self._process.close()

    def order(self, program: str, **more: Any) -> str:
        body = {"program": program, "dataset": "tickets", "threads": 1, **OPTIMIZERS[program], **more}
        answer = self.client.post("/v1/optimizations", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def order_all(self, programs: Iterable[str] = OPTIMIZERS, **more: Any) -> dict[str, str]:
        """The identifiers, by program. The model forgets what it was asked before."""
        self.model.forget()
        return {program: self.order(program, **more) for program in programs}

    def now(self, optimization_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/v1/optimizations/{optimization_id}").json()
        return found

    def ended(self, optimization_id: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.now(optimization_id)
            return found if found.get("status") in ("completed", "failed", "cancelled") else None

        found: dict[str, Any] = until(look)
        return found

    def node_of(self, optimization_id: str) -> str:
        return str(until(lambda: self.client.get(f"/v1/jobs/{optimization_id}").json()["node"]))

    def worker(self) -> psutil.Process:
        """The one that does this node's jobs."""
        found: psutil.Process = until(
            lambda: next((one for one in self._below() if "work" in one.cmdline()), None)
        )
        return found

    def _below(self) -> list[psutil.Process]:
        return psutil.Process(self.service.process.pid).children()

    def kill_host(self) -> None:
        """All its processes at once, as when the machine goes."""
        kill_all(self.service.process.pid)
        self.close()


def optimizers_of(worker: psutil.Process) -> list[psutil.Process]:
    """Their processes: forked from the one below the worker that has DSPy in it."""
    return [one for nursery in worker.children() for one in nursery.children()]


def kill_all(pid: int) -> None:
    parent = psutil.Process(pid)
    parent.suspend()
    doomed = [parent, *parent.children(recursive=True)]
    for one in doomed:
        one.suspend()
    for one in doomed:
        one.kill()


@contextmanager
def node(
    directory: Path, model: WatchedModel, extra: str, environment: Mapping[str, str] | None = None
) -> Iterator[Node]:
    made = Node(directory, model, extra, environment or {})
    try:
        made.start()
        yield made
    finally:
        made.close()


def undisturbed(at: Node, programs: Iterable[str] = OPTIMIZERS) -> dict[str, Undisturbed]:
    """What comes of them when nothing happens, with one thread, and how many calls each takes."""
    made = at.order_all(programs)
    done = {program: at.ended(one) for program, one in made.items()}
    for program, one in done.items():
        assert one["result"]["improved"], one["result"]
        assert one["lm_calls"] == at.model.asked[program]
    return {program: Undisturbed(one["result"]["digest"], one["lm_calls"]) for program, one in done.items()}


class Moments:
    """Random ones. `DSPEX_TEST_KILL_SEED` draws those of a failed run again, as near as two runs can be."""

    def __init__(self) -> None:
        seed = int(os.environ.get("DSPEX_TEST_KILL_SEED") or secrets.randbelow(1_000_000))
        print(f"DSPEX_TEST_KILL_SEED={seed}")
        self._random = random.Random(seed)

    def wait(self, model: WatchedModel, calls: Mapping[str, int]) -> None:
        """Until some call that is still to come: within it, behind it, or behind the last one of a run."""
        begun = {program: model.asked[program] for program in calls}
        ahead = [program for program in calls if begun[program] < calls[program]]
        if not ahead:
            return
        program = self._random.choice(ahead)
        call = self._random.randint(begun[program] + 1, calls[program])
        print(f"struck after call {call} of {program}")
        assert model.comes_to(program, call, SECONDS), model.asked
        time.sleep(self._random.uniform(0, 0.05 if call < calls[program] else 0.4))


def lost_by(database: str, model: WatchedModel, made: Mapping[str, str]) -> dict[str, int]:
    """How many calls were asked for whose answers are not on record, by program: those in flight at the kills."""

    async def journaled() -> dict[str, int]:
        async with open_database(Settings(database_url=database)) as opened:
            return {
                program: (await opened.journal.totals("default", one)).calls for program, one in made.items()
            }

    kept = outside_loop(lambda: asyncio.run(journaled()))
    return {program: model.asked[program] - kept[program] for program in made}
