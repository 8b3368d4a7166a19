"""Optimizations on PostgreSQL: one of two nodes is killed at a random moment, or the database is away for a while."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from tests.faults.optimizing_nodes import (
    Moments,
    Node,
    Undisturbed,
    kill_all,
    lost_by,
    node,
    undisturbed,
    until,
)
from tests.faults.watched_model import watched_model
from tests.plugins.databases import empty
from tests.plugins.proxy import Proxy, proxy_to
from tests.plugins.workers import WorkerProcess, running_worker

# They run elsewhere, all at once.
ELSEWHERE = "jobs: {workers: 0, queues: {optimization: 3}}"
AWAY_S = 8.0
TAKEN_OVER_S = 75.0


@dataclass(frozen=True)
class Nodes:
    """What serves, and workers; `proxy` is between them and the database."""

    at: Node
    workers: Sequence[WorkerProcess]
    proxy: Proxy
    alone: Mapping[str, Undisturbed]

    def busiest(self, made: Mapping[str, str]) -> WorkerProcess:
        names = [self.at.node_of(one) for one in made.values()]
        return max(self.workers, key=lambda one: sum(of(one, name) for name in names))


def of(worker: WorkerProcess, name: str) -> bool:
    return f"-{worker.process.pid}-" in name


@pytest.fixture(scope="module")
def nodes(migrated_postgresql: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    empty(migrated_postgresql)
    directory = tmp_path_factory.mktemp("nodes")
    parts = urlsplit(migrated_postgresql)
    with (
        watched_model() as model,
        proxy_to(parts.hostname or "", parts.port or 5432) as proxy,
        ExitStack() as stack,
    ):
        url = parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}").geturl()
        environment = {"DATABASE_URL": url}
        at = stack.enter_context(node(directory, model, ELSEWHERE, environment))
        # Past the proxy.
        at.database = migrated_postgresql
        workers = [
            stack.enter_context(
                running_worker(directory, "--data-dir", name, environment=environment, name=name)
            )
            for name in ("one", "two")
        ]
        yield Nodes(at, workers, proxy, undisturbed(at))


def test_a_database_that_is_away_for_a_while_costs_nothing(nodes: Nodes) -> None:
    at, moments = nodes.at, Moments()
    made = at.order_all()
    moments.wait(at.model, {program: one.calls // 2 for program, one in nodes.alone.items()})
    nodes.proxy.cut()
    time.sleep(AWAY_S)
    nodes.proxy.mend()
    until(lambda: at.client.get("/ready").status_code == 200)
    for program, one in made.items():
        done = at.ended(one)
        assert (done["status"], done["attempts"], done["error"]) == ("completed", 1, None)
        assert (done["result"]["digest"], done["lm_calls"]) == _expected(nodes, program)
        assert at.model.asked[program] == done["lm_calls"]


def test_a_dead_nodes_optimizations_go_on_elsewhere_in_time(nodes: Nodes) -> None:
    at, moments = nodes.at, Moments()
    made = at.order_all()
    moments.wait(at.model, {program: one.calls // 2 for program, one in nodes.alone.items()})
    victim = nodes.busiest(made)
    kill_all(victim.process.pid)
    killed = time.monotonic()
    lost = lost_by(at.database, at.model, made)
    orphans = [
        one for one in made.values() if at.now(one)["status"] == "running" and of(victim, at.node_of(one))
    ]
    assert orphans
    until(lambda: not any(of(victim, at.node_of(one)) for one in orphans))
    assert time.monotonic() - killed < TAKEN_OVER_S
    for program, one in made.items():
        done = at.ended(one)
        assert (done["status"], done["attempts"]) == ("completed", 2 if one in orphans else 1)
        assert (done["result"]["digest"], done["lm_calls"]) == _expected(nodes, program)
        # The others went on meanwhile.
        in_flight = lost[program] if one in orphans else 0
        assert in_flight <= 1
        assert at.model.asked[program] == done["lm_calls"] + in_flight
    assert not any("Traceback" in one.log for one in nodes.workers)


def _expected(nodes: Nodes, program: str) -> tuple[str, int]:
    return nodes.alone[program].digest, nodes.alone[program].calls
