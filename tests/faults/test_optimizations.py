"""Optimizations whose workers and nodes are really killed: they go on, and pay for nothing twice."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from dspex.providers.language_models.simulator.task_tickets import TICKETS
from dspex.providers.language_models.simulator.tasks import task_rows
from tests.conftest_simulator import RunningSimulator, running_simulator
from tests.plugins.service import Service, running_service
from tests.plugins.workers import running_worker

SECONDS = 90
SEARCH: Mapping[str, Any] = {
    "optimizer": "BootstrapFewShotWithRandomSearch",
    "config": {"num_candidate_programs": 2, "max_labeled_demos": 4},
}
GEPA: Mapping[str, Any] = {"optimizer": "GEPA", "config": {"max_metric_calls": 24}}


@pytest.fixture(scope="module")
def teacher() -> Iterator[RunningSimulator]:
    """A model that learns from prompts, slow enough to be interrupted."""
    with running_simulator("--teach") as running:
        yield running


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def config(teacher: RunningSimulator, extra: str = "") -> str:
    return f"""\
models:
  default: main
  registry:
    main:
      model: openai/gpt-4o-mini
      api_base: "{teacher.base_url}"
      temperature: 0.0
      max_tokens: 200
      timeout_s: 300
      pricing: {{input_per_million: 0.15, output_per_million: 0.6}}
programs:
  - {{name: tickets, signature: "{TICKETS.signature}"}}
datasets:
  - {{name: tickets, path: tickets.jsonl, kind: training}}
{extra}
"""


def furnish(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    rows = task_rows(TICKETS, "training", 14)
    lines = [json.dumps({"inputs": row.inputs, "outputs": row.outputs}) for row in rows]
    (directory / "tickets.jsonl").write_text("\n".join(lines), encoding="utf-8")


@dataclass
class Node:
    service: Service
    client: httpx.Client
    teacher: RunningSimulator

    def order(self, **more: Any) -> str:
        body = {"program": "tickets", "dataset": "tickets", "threads": 1, "use_cache": True, **more}
        answer = self.client.post("/v1/optimizations", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def now(self, optimization_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/v1/optimizations/{optimization_id}").json()
        return found

    def ended(self, optimization_id: str, seconds: float = SECONDS) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.now(optimization_id)
            return found if found["status"] in ("completed", "failed", "cancelled") else None

        found: dict[str, Any] = until(look, seconds)
        return found

    def hang_at(self, call: int) -> None:
        """The model does not answer that call, counted from 0, until it is asked for something else."""
        self.teacher.control("script", {"rules": [{"calls": [call], "fault": {"kind": "hang"}}]})

    def hangs(self, call: int) -> None:
        """Returns when the model was asked that, and has answered all before."""
        until(lambda: self.teacher.calls() > call)

    def node_of(self, optimization_id: str) -> int:
        """The process of the worker that runs it."""
        name = until(lambda: self.client.get(f"/v1/jobs/{optimization_id}").json()["node"])
        return int(name.rsplit("-", 2)[1])


@contextmanager
def node(
    directory: Path, teacher: RunningSimulator, environment: Mapping[str, str] | None = None, extra: str = ""
) -> Iterator[Node]:
    furnish(directory)
    with (
        running_service(directory, config(teacher, extra), environment=environment) as service,
        service.client() as client,
    ):
        yield Node(service, client, teacher)


def digest_of(done: dict[str, Any]) -> str:
    assert done["status"] == "completed", done["error"]
    return str(done["result"]["digest"])


@dataclass(frozen=True)
class Undisturbed:
    digest: str
    calls: int


def run_undisturbed(how: Mapping[str, Any], teacher: RunningSimulator, directory: Path) -> Undisturbed:
    teacher.control("reset", {})
    with node(directory, teacher) as at:
        done = at.ended(at.order(**how))
        assert done["result"]["improved"], done["result"]
        assert done["lm_calls"] == teacher.calls()
        return Undisturbed(digest_of(done), teacher.calls())


@pytest.fixture(scope="module")
def undisturbed(teacher: RunningSimulator, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """What comes of a search when nothing is killed, and how many calls that takes."""
    return run_undisturbed(SEARCH, teacher, tmp_path_factory.mktemp("undisturbed"))


def youngest_optimizer(worker: int) -> psutil.Process:
    """The optimizer's process under a worker: forked last, by the process that has DSPy."""
    below = psutil.Process(worker).children(recursive=True)
    forked = [one for one in below if one.ppid() != worker]
    assert forked, below
    return max(forked, key=lambda one: one.create_time())


def test_a_killed_optimizer_goes_on_and_pays_for_nothing_twice(
    tmp_path: Path, teacher: RunningSimulator
) -> None:
    undisturbed = run_undisturbed(GEPA, teacher, tmp_path / "undisturbed")
    teacher.control("reset", {})
    with node(tmp_path / "killed", teacher) as at:
        at.hang_at(call := undisturbed.calls // 3)
        made = at.order(**GEPA)
        at.hangs(call)
        youngest_optimizer(at.node_of(made)).send_signal(signal.SIGKILL)
        done = at.ended(made)
        assert (done["attempts"], digest_of(done)) == (2, undisturbed.digest)
        assert done["lm_calls"] == undisturbed.calls
        assert done["replayed_calls"] >= call
        # The one that was in flight, and got no answer.
        assert teacher.calls() == undisturbed.calls + 1


def test_a_killed_worker_goes_on_and_pays_for_nothing_twice(
    tmp_path: Path, teacher: RunningSimulator, undisturbed: Undisturbed
) -> None:
    teacher.control("reset", {})
    with node(tmp_path, teacher) as at:
        at.hang_at(call := undisturbed.calls // 2)
        made = at.order(**SEARCH)
        at.hangs(call)
        os.kill(at.node_of(made), signal.SIGKILL)
        done = at.ended(made)
        assert (done["attempts"], digest_of(done)) == (2, undisturbed.digest)
        assert done["lm_calls"] == undisturbed.calls
        assert teacher.calls() == undisturbed.calls + 1


def test_a_dead_nodes_optimization_goes_on_elsewhere(
    tmp_path: Path, teacher: RunningSimulator, postgresql_url: str, undisturbed: Undisturbed
) -> None:
    teacher.control("reset", {})
    environment = {"DATABASE_URL": postgresql_url}
    with (
        node(tmp_path, teacher, environment, "jobs: {workers: 0}") as at,
        running_worker(tmp_path, "--data-dir", "one", environment=environment, name="one") as one,
    ):
        at.hang_at(20)
        made = at.order(**SEARCH)
        at.hangs(20)
        with running_worker(tmp_path, "--data-dir", "two", environment=environment, name="two") as two:
            one.kill()
            done = at.ended(made, 180)
            assert (done["attempts"], digest_of(done)) == (2, undisturbed.digest)
            assert (done["lm_calls"], teacher.calls()) == (undisturbed.calls, undisturbed.calls + 1)
            assert "Traceback" not in two.log


def test_a_rate_limit_of_the_provider_is_waited_out(
    tmp_path: Path, teacher: RunningSimulator, undisturbed: Undisturbed
) -> None:
    teacher.control("reset", {})
    with node(tmp_path, teacher) as at:
        limited = {"calls": [8], "fault": {"kind": "rate_limit", "retry_after": 12}}
        teacher.control("script", {"rules": [limited]})
        made = at.order(**SEARCH)
        done = at.ended(made)
        assert (done["attempts"], digest_of(done)) == (1, undisturbed.digest)
        assert (teacher.calls(), done["failed_calls"]) == (undisturbed.calls + 1, 1)
        # It was begun twice: meanwhile others could have had its slot.
        told = at.client.get(f"/v1/optimizations/{made}/events").text
        assert len(re.findall(r"^event: status$", told, re.MULTILINE)) == 2


def test_paused_resumed_and_cancelled_over_http(tmp_path: Path, teacher: RunningSimulator) -> None:
    teacher.control("reset", {})
    with node(tmp_path, teacher) as at:
        at.hang_at(8)
        made = at.order(**SEARCH)
        at.hangs(8)
        assert at.client.post(f"/v1/optimizations/{made}/pause", json={}).json()["status"] == "paused"
        worker = until(lambda: _workers_of(at.service))
        until(lambda: not _optimizing(worker))
        assert teacher.calls() == 9
        at.hang_at(14)
        assert at.client.post(f"/v1/optimizations/{made}/resume", json={}).json()["status"] == "queued"
        at.hangs(14)
        assert at.client.post(f"/v1/optimizations/{made}/cancel", json={}).status_code == 202
        done = at.ended(made)
        # 8 before the pause; then the one that had no answer, up to the next such one.
        assert (done["status"], done["lm_calls"]) == ("cancelled", 13)
        until(lambda: not _optimizing(worker))
        told = at.client.get(f"/v1/optimizations/{made}/events", headers={"last-event-id": f"{made}:1"}).text
        assert re.search(r"^event: end$", told, re.MULTILINE)
        assert f"id: {made}:1\n" not in told


def _workers_of(service: Service) -> list[psutil.Process]:
    return psutil.Process(service.process.pid).children()


def _optimizing(workers: list[psutil.Process]) -> list[psutil.Process]:
    """Processes that were forked from one with DSPy in it."""
    found = []
    for worker in workers:
        for nursery in worker.children():
            found += nursery.children()
    return found
