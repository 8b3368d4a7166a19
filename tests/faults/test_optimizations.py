"""Optimizations that are paused, cancelled, refused by their provider, and given back by a node that stops."""

import re
import time
from collections.abc import Iterator

import pytest

from dspex.providers.language_models.simulator.faults import Fault
from tests.faults.optimizing_nodes import Node, Undisturbed, node, optimizers_of, undisturbed, until
from tests.faults.watched_model import WatchedModel, watched_model

# Who holds the only slot keeps all others waiting.
ONE_AT_A_TIME = "jobs: {queues: {optimization: 1}}"
HANGS = Fault(kind="hang")
# Longer than a call is waited for in place.
LIMITED_S = 11.5


@pytest.fixture(scope="module")
def model() -> Iterator[WatchedModel]:
    with watched_model() as watched:
        yield watched


@pytest.fixture(scope="module")
def at(model: WatchedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node(tmp_path_factory.mktemp("node"), model, ONE_AT_A_TIME) as made:
        yield made


@pytest.fixture(scope="module")
def alone(at: Node) -> dict[str, Undisturbed]:
    return undisturbed(at, ["search"])


def test_a_rate_limit_of_the_provider_is_waited_out_without_a_slot(
    at: Node, alone: dict[str, Undisturbed]
) -> None:
    at.model.forget()
    limited = at.order("search")
    assert at.model.comes_to("search", 8, 60)
    at.model.limit("search", LIMITED_S)
    until(lambda: at.now(limited)["status"] == "queued")
    other = at.ended(at.order("gepa"))
    assert other["status"] == "completed", other["error"]
    done = at.ended(limited)
    # With the slot still taken it would have had to wait.
    assert other["completed_at"] < done["completed_at"]
    assert (done["status"], done["attempts"]) == ("completed", 1)
    assert (done["result"]["digest"], done["lm_calls"]) == (alone["search"].digest, alone["search"].calls)
    # What was refused, and no call beside it.
    assert at.model.asked["search"] == done["lm_calls"] + done["failed_calls"]
    assert done["failed_calls"] <= 3
    told = at.client.get(f"/v1/optimizations/{limited}/events").text
    assert len(re.findall(r"^event: status$", told, re.MULTILINE)) >= 2


def test_paused_resumed_and_cancelled_over_http(at: Node) -> None:
    model = at.model
    model.forget()
    model.faults = {("search", 30): HANGS}
    made = at.order("search")
    assert model.comes_to("search", 9, 60)
    assert at.client.post(f"/v1/optimizations/{made}/pause", json={}).json()["status"] == "paused"
    worker = at.worker()
    until(lambda: not optimizers_of(worker))
    assert model.asked["search"] < 30
    assert at.client.post(f"/v1/optimizations/{made}/resume", json={}).json()["status"] == "queued"
    assert model.comes_to("search", 31, 60)
    assert at.client.post(f"/v1/optimizations/{made}/cancel", json={}).status_code == 202
    asked = time.monotonic()
    until(lambda: not optimizers_of(worker))
    done = at.ended(made)
    assert time.monotonic() - asked < 3
    # All that was in flight at the pause has been waited for; the last one has no answer.
    assert (done["status"], done["lm_calls"]) == ("cancelled", 30)
    told = at.client.get(f"/v1/optimizations/{made}/events", headers={"last-event-id": f"{made}:1"}).text
    assert re.search(r"^event: end$", told, re.MULTILINE)
    assert f"id: {made}:1\n" not in told
    kept = at.client.post(f"/v1/optimizations/{made}/keep", json={})
    assert kept.status_code in (200, 201), kept.text


def test_a_node_that_stops_gives_it_back_at_once_and_the_next_goes_on(
    at: Node, alone: dict[str, Undisturbed]
) -> None:
    at.model.forget()
    at.model.faults = {("search", 20): HANGS}
    made = at.order("search")
    assert at.model.comes_to("search", 21, 60)
    asked = time.monotonic()
    assert at.service.stop() == 0
    # Requests would have half a minute; what is in flight here has ten seconds, and nothing is begun behind it.
    assert time.monotonic() - asked < 25
    assert at.model.asked["search"] == 21
    at.close()
    at.start()
    done = at.ended(made)
    assert (done["status"], done["attempts"]) == ("completed", 1)
    assert (done["result"]["digest"], done["lm_calls"]) == (alone["search"].digest, alone["search"].calls)
    assert at.model.asked["search"] == done["lm_calls"] + 1
