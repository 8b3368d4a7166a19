"""Caches of real nodes: identical requests at once, Redis that dies and comes back, nodes that share."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.commands import dspex
from tests.plugins.proxy import proxy_to
from tests.plugins.redis import OwnRedis, own_redis
from tests.plugins.service import NO_CERTIFICATES, Service, config, running_service

PREDICT = "/v1/programs/qa/predict"


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, simulator_process: RunningSimulator
) -> Iterator[Service]:
    # One attempt: what is seen of a failure is the failure.
    once = config(simulator_process.base_url).replace(
        "max_tokens: 1000", "max_tokens: 1000, retries: {attempts: 1}"
    )
    with running_service(tmp_path_factory.mktemp("node"), once) as running:
        yield running


async def at_once(service: Service, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=len(bodies))
    async with httpx.AsyncClient(
        base_url=service.url, timeout=30, limits=limits, verify=NO_CERTIFICATES
    ) as client:
        return await asyncio.gather(*(client.post(PREDICT, json=body) for body in bodies))


def question(text: str, **more: Any) -> dict[str, Any]:
    return {"inputs": {"question": text}, **more}


async def test_a_hundred_identical_requests_make_one_call(
    service: Service, simulator: RunningSimulator
) -> None:
    simulator.control("faults", {"latency": "300ms"})
    answers = await at_once(service, [question("Who asks this at once?")] * 100)
    simulator.control("faults", {"latency": "0ms"})
    assert [one.status_code for one in answers] == [200] * 100
    assert simulator.calls() == 1
    found = [one.json() for one in answers]
    assert Counter(one["cache"] for one in found) == {"miss": 1, "hit": 99}
    assert len({str(one["outputs"]) for one in found}) == 1
    assert len({one["id"] for one in found}) == 100
    assert sum(one["usage"]["total_tokens"] > 0 for one in found) == 1


async def test_if_it_fails_all_get_the_error_once_and_the_next_tries_again(
    service: Service, simulator: RunningSimulator
) -> None:
    fault = {"kind": "rate_limit", "retry_after": 7}
    simulator.control("script", {"rules": [{"calls": [0], "fault": fault}]})
    simulator.control("faults", {"latency": "300ms"})
    answers = await at_once(service, [question("Who fails at once?")] * 20)
    simulator.control("faults", {"latency": "0ms"})
    assert {(one.status_code, one.headers["retry-after"]) for one in answers} == {(429, "7")}
    assert {one.json()["code"] for one in answers} == {"lm_rate_limited"}
    assert simulator.calls() == 1
    again = service.predict("qa", {"question": "Who fails at once?"})
    assert (again.status_code, again.headers["x-cache"], simulator.calls()) == (200, "miss", 2)


async def test_a_leader_that_leaves_hands_over(service: Service, simulator: RunningSimulator) -> None:
    simulator.control("script", {"rules": [{"calls": [0], "fault": {"kind": "hang"}}]})
    body = question("Who leaves first?")
    leaving = asyncio.create_task(at_once(service, [body]))
    while simulator.calls() < 1:
        await asyncio.sleep(0.01)
    staying = asyncio.create_task(at_once(service, [body] * 10))
    await asyncio.sleep(0.1)
    leaving.cancel()
    answers = await staying
    assert [one.status_code for one in answers] == [200] * 10
    assert simulator.calls() == 2


def test_the_command_line_looks_at_the_caches_of_a_running_node(service: Service, tmp_path: Path) -> None:
    service.predict("qa", {"question": "What is kept?"})
    url = ("--url", service.url)
    assert "prediction" in dspex(tmp_path, "cache", "stats", *url).stdout
    assert '"hit_rate"' in dspex(tmp_path, "cache", "stats", "--json", *url).stdout
    assert dspex(tmp_path, "cache", "clear", *url).stdout == "cleared default\n"
    assert service.predict("qa", {"question": "What is kept?"}).headers["x-cache"] == "miss"
    assert dspex(tmp_path, "cache", "clear", "--all-projects", *url).stdout == "cleared all projects\n"
    (tmp_path / "dspex.yaml").write_text("server: {port: 1}")
    assert "http://127.0.0.1:1" in dspex(tmp_path, "cache", "stats", status=1).stderr


def with_redis(base_url: str, redis: OwnRedis) -> str:
    return config(base_url, extra=f'redis_url: "{redis.url}"')


def redis_state(service: Service) -> Any:
    with service.client() as client:
        return client.get("/v1/cache").json()["redis"]


def test_nodes_share_replies_through_redis(tmp_path: Path, simulator: RunningSimulator) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with own_redis(tmp_path) as redis:
        declared = with_redis(simulator.base_url, redis)
        with (
            running_service(tmp_path / "a", declared) as one,
            running_service(tmp_path / "b", declared) as other,
        ):
            first = one.predict("qa", {"question": "Which?"})
            assert first.headers["x-cache"] == "miss"
            again = other.predict("qa", {"question": "Which?"})
            assert (again.headers["x-cache"], simulator.calls()) == ("hit", 1)
            assert again.json()["outputs"] == first.json()["outputs"]
            assert redis_state(one) == redis_state(other) == "ok"


async def test_redis_dies_and_comes_back_under_load_and_no_request_fails(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with own_redis(tmp_path) as redis:
        declared = with_redis(simulator.base_url, redis)
        with (
            running_service(tmp_path / "a", declared) as one,
            running_service(tmp_path / "b", declared) as other,
        ):
            statuses: Counter[int] = Counter()
            running = True

            async def load(service: Service, caller: int) -> None:
                async with httpx.AsyncClient(
                    base_url=service.url, timeout=30, verify=NO_CERTIFICATES
                ) as client:
                    number = 0
                    while running:
                        number += 1
                        body = question(f"Caller {caller} asks {number // 3}?")
                        statuses[(await client.post(PREDICT, json=body)).status_code] += 1

            loads = [asyncio.create_task(load(node, caller)) for node in (one, other) for caller in range(4)]
            await asyncio.sleep(0.5)
            redis.kill()
            await _until(lambda: redis_state(one) == "away")
            await asyncio.sleep(0.5)
            redis.start()
            await asyncio.sleep(1.2)
            running = False
            await asyncio.gather(*loads)
            assert set(statuses) == {200} and statuses[200] > 100
            # Shared again, by a node that looks for it and one that has it.
            await _until(lambda: _shared(one, other))
            assert redis_state(one) == redis_state(other) == "ok"


def _shared(one: Service, other: Service) -> bool:
    text = f"Is it shared again at {time.monotonic()}?"
    one.predict("qa", {"question": text})
    return other.predict("qa", {"question": text}).headers["x-cache"] == "hit"


async def _until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


def test_postgresql_goes_away_and_what_is_kept_is_answered(
    tmp_path: Path, simulator: RunningSimulator, postgresql_url: str
) -> None:
    parts = urlsplit(postgresql_url)
    with proxy_to(parts.hostname or "", parts.port or 5432) as proxy:
        url = parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}").geturl()
        with running_service(
            tmp_path, config(simulator.base_url), environment={"DATABASE_URL": url}
        ) as service:
            service.predict("qa", {"question": "Kept?"})
            proxy.cut()
            hits = [service.predict("qa", {"question": "Kept?"}) for _ in range(20)]
            assert {(one.status_code, one.headers["x-cache"]) for one in hits} == {(200, "hit")}
            assert service.predict("qa", {"question": "Not kept?"}).status_code == 503
            proxy.mend()
            ids = {one.json()["id"] for one in hits}
            deadline = time.monotonic() + 15
            while ids:
                assert time.monotonic() < deadline
                with service.client() as client:
                    answers = {one: client.get(f"/v1/executions/{one}").status_code for one in ids}
                ids -= {one for one, status in answers.items() if status == 200}
                time.sleep(0.1)
