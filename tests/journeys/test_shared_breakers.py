"""Two nodes on one Redis: what opens on one is open on the other; and Redis may go and come back."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.redis import OwnRedis, own_redis
from tests.plugins.service import Service, config, running_service

ASK = {"question": "Which?"}
MODEL = "max_tokens: 1000, retries: {attempts: 1}, breaker: {open_s: 2}}"
WITHIN_S = 5.0


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[OwnRedis]:
    """Of our own, as it is killed; `redis_url` says whether there is a Redis at all."""
    with own_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def nodes(
    tmp_path_factory: pytest.TempPathFactory, redis: OwnRedis, simulator_process: RunningSimulator
) -> Iterator[list[Service]]:
    declared = (
        config(simulator_process.base_url).replace("max_tokens: 1000}", MODEL)
        + 'cache: {policy: {mode: "off"}}\n'
    )
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                running_service(directory, declared, environment={"REDIS_URL": redis.url}, ready=True)
            )
            for directory in (tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other"))
        ]


@pytest.fixture(autouse=True)
def fresh(nodes: list[Service], simulator: RunningSimulator) -> None:
    with nodes[0].client() as client:
        assert client.post("/v1/breakers/main/reset").status_code == 200
    for node in nodes:
        wait_for(node, "closed")


def state(node: Service) -> str:
    with node.client() as client:
        return str(client.get("/health").json()["breakers"]["main"])


def wait_for(node: Service, *wanted: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while (found := state(node)) not in wanted:
        assert time.monotonic() < deadline, f"the breaker is {found}, not {wanted}"
        time.sleep(0.02)


def break_model(simulator: RunningSimulator, node: Service) -> None:
    simulator.control("script", {"rules": [{"fault": {"kind": "server_error"}}]})
    for _ in range(5):
        assert node.predict("qa", ASK).json()["code"] == "lm_server_error"
    assert state(node) == "open"


def test_what_opens_on_one_is_open_on_the_other_and_so_with_closing(
    nodes: list[Service], simulator: RunningSimulator
) -> None:
    one, other = nodes
    break_model(simulator, one)
    wait_for(other, "open")
    asked = simulator.calls()
    assert other.predict("qa", ASK).json()["code"] == "breaker_open"
    assert simulator.calls() == asked
    simulator.control("script", {"rules": []})
    wait_for(one, "half_open")
    wait_for(other, "half_open")
    for node in (one, other, one):
        deadline = time.monotonic() + WITHIN_S
        while node.predict("qa", ASK).status_code != 200:
            assert time.monotonic() < deadline
    wait_for(one, "closed")
    wait_for(other, "closed")


def test_an_operators_word_reaches_the_other_node(nodes: list[Service]) -> None:
    one, other = nodes
    with one.client() as client:
        client.post("/v1/breakers/main/open")
    wait_for(other, "open")
    with other.client() as client:
        client.post("/v1/breakers/main/close")
    wait_for(one, "closed")


def test_redis_dies_and_comes_back_under_load(
    nodes: list[Service], simulator: RunningSimulator, redis: OwnRedis
) -> None:
    one, other = nodes
    stop = time.monotonic() + 60

    def load(node: Service) -> list[int]:
        statuses = []
        with node.client() as client:
            while time.monotonic() < stop:
                body: dict[str, Any] = {"inputs": ASK}
                statuses.append(client.post("/v1/programs/qa/predict", json=body).status_code)
        return statuses

    with ThreadPoolExecutor(4) as callers:
        results = [callers.submit(load, node) for node in nodes for _ in range(2)]
        time.sleep(0.5)
        redis.kill()
        time.sleep(1)
        redis.start()
        time.sleep(0.5)
        stop = 0.0
        statuses = [status for result in results for status in result.result()]
    assert set(statuses) == {200} and len(statuses) > 50

    redis.kill()
    # Each on its own meanwhile ...
    break_model(simulator, one)
    assert state(other) == "closed"
    redis.start()
    # ... and together again afterwards: what one found out alone, the other hears.
    wait_for(other, "open", "half_open")


def test_a_node_that_starts_later_hears_of_it_before_its_first_call(
    nodes: list[Service], simulator: RunningSimulator, redis: OwnRedis, tmp_path: Path
) -> None:
    with nodes[0].client() as client:
        client.post("/v1/breakers/main/open")
    declared = (
        config(simulator.base_url).replace("max_tokens: 1000}", MODEL) + 'cache: {policy: {mode: "off"}}\n'
    )
    with running_service(tmp_path, declared, environment={"REDIS_URL": redis.url}) as late:
        assert late.predict("qa", ASK).json()["code"] == "breaker_open"
