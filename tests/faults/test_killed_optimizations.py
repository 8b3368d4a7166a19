"""Optimizations whose workers and hosts are killed at random moments: they go on, and pay for nothing twice."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.optimizing_nodes import (
    Moments,
    Node,
    Undisturbed,
    lost_by,
    node,
    optimizers_of,
    undisturbed,
    until,
)
from tests.faults.watched_model import WatchedModel, watched_model

# All of them at once.
SIDE_BY_SIDE = "jobs: {queues: {optimization: 3}}"


@pytest.fixture(scope="module")
def model() -> Iterator[WatchedModel]:
    with watched_model() as watched:
        yield watched


@pytest.fixture(scope="module")
def at(model: WatchedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node(tmp_path_factory.mktemp("node"), model, SIDE_BY_SIDE) as made:
        yield made


@pytest.fixture(scope="module")
def alone(at: Node) -> dict[str, Undisturbed]:
    return undisturbed(at)


def test_with_one_thread_they_end_where_they_would_have_ended(
    at: Node, alone: dict[str, Undisturbed]
) -> None:
    moments, calls = Moments(), {program: one.calls for program, one in alone.items()}
    made = at.order_all()
    moments.wait(at.model, calls)
    at.worker().kill()
    lost = lost_by(at.database, at.model, made)
    # Some of these are still in flight for nobody; a run goes on when something new is asked.
    moments.wait(at.model, {program: calls[program] + lost[program] for program in calls})
    at.kill_host()
    lost = lost_by(at.database, at.model, made)
    at.start()
    for program, one in made.items():
        done = at.ended(one)
        assert done["status"] == "completed", done["error"]
        assert (done["result"]["digest"], done["lm_calls"]) == (alone[program].digest, calls[program])
        assert at.model.asked[program] == calls[program] + lost[program]
        assert lost[program] <= 2


def test_with_several_threads_nothing_on_record_is_asked_again(
    at: Node, alone: dict[str, Undisturbed]
) -> None:
    moments, calls = Moments(), {program: one.calls // 2 for program, one in alone.items()}
    made = at.order_all(threads=4)
    # One whose process is not there yet would not be struck.
    until(lambda: all(at.model.asked[program] for program in made))
    moments.wait(at.model, calls)
    for optimizer in optimizers_of(at.worker()):
        optimizer.kill()
    # The node is alive: what was in flight is kept. Some were over before the others had begun.
    until(lambda: all(_struck_or_over(at.now(one)) for one in made.values()))
    moments.wait(at.model, {program: one.calls for program, one in alone.items()})
    at.worker().kill()
    lost = lost_by(at.database, at.model, made)
    for program, one in made.items():
        done = at.ended(one)
        assert done["status"] == "completed", done["error"]
        assert at.model.asked[program] == done["lm_calls"] + lost[program]
        assert lost[program] <= 4


def _struck_or_over(optimization: dict[str, Any]) -> bool:
    return optimization["attempts"] == 2 or optimization["status"] == "completed"
