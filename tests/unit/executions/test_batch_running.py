"""What a worker makes of a batch whose database is slow, or away, when it ends."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from dspex.executions.batches import running
from dspex.executions.batches.records import BatchItem
from dspex.executions.batches.running import BatchHandler
from dspex.executions.catalog import Runnable
from dspex.executions.records import Execution, ExecutionFilter
from dspex.executions.requests import PredictionRequest
from dspex.jobs.lease import Lease
from dspex.jobs.records import Job
from dspex.jobs.worker import Worker
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Unavailable
from tests.interfaces.node import TestNode, mock_program

ITEMS = 30


async def nothing() -> None:
    """A heartbeat that always succeeds."""


def worker_of(node: TestNode) -> Worker:
    clock, services = SystemClock(), node.services
    handler = BatchHandler(services.predictions, node.batches, node.executions, services.keys, clock)
    return Worker(node.job_store, {}, {"batch": handler}, Lease(nothing, clock), clock, node.facts, "me")


async def submitted(node: TestNode) -> Job:
    async with node.client() as client:
        await mock_program(client, "qa", mock={"outputs": {"answer": "yes"}})
        body = {"program": "qa", "inputs": [{"question": f"{at}?"} for at in range(ITEMS)]}
        made = (await client.post("/v1/batches", json=body)).json()
    return await node.services.jobs.get("default", made["id"])


async def states(node: TestNode, job: Job) -> list[str | None]:
    return [one.item.state async for one in node.services.batches.results(job)]


async def test_what_is_being_written_when_it_ends_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "FLUSH", 10)
    node = TestNode()
    settle = node.batches.settle
    writing = asyncio.Event()

    async def slow(job: Job, ended: Sequence[BatchItem], progress: Mapping[str, Any]) -> bool:
        writing.set()
        await asyncio.sleep(0.1)
        return await settle(job, ended, progress)

    monkeypatch.setattr(node.batches, "settle", slow)
    job = await submitted(node)
    await worker_of(node).take("default", job.id, job.turn)
    assert writing.is_set()
    assert await states(node, job) == ["completed"] * ITEMS


async def test_a_database_that_is_away_when_it_is_cancelled_hears_of_it_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "FLUSH_S", 0.01)
    node = TestNode()
    settle, tries = node.batches.settle, 0

    async def away(job: Job, ended: Sequence[BatchItem], progress: Mapping[str, Any]) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            worker.cancel("default", job.id)
        if tries <= 5:
            raise Unavailable("The database is away.", code="database_unavailable")
        return await settle(job, ended, progress)

    monkeypatch.setattr(node.batches, "settle", away)
    job = await submitted(node)
    worker = worker_of(node)
    await worker.take("default", job.id, job.turn)
    ran = [one async for one in node.services.batches.results(job) if one.execution is not None]
    assert tries == 6
    assert {one.item.state for one in ran} == {"completed"}
    assert len(ran) == len(node.executions.matching("default", ExecutionFilter())) > 0


async def test_a_write_that_fails_in_a_way_that_nobody_foresaw_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "FLUSH", 10)
    node = TestNode()
    settle, tries = node.batches.settle, 0

    async def broken_at_first(job: Job, ended: Sequence[BatchItem], progress: Mapping[str, Any]) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("a driver's mood")
        return await settle(job, ended, progress)

    monkeypatch.setattr(node.batches, "settle", broken_at_first)
    job = await submitted(node)
    await worker_of(node).take("default", job.id, job.turn)
    assert (await node.services.jobs.get("default", job.id)).state == "completed"
    assert await states(node, job) == ["completed"] * ITEMS


async def test_an_answer_that_is_paid_waits_for_a_database_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "AGAIN_S", 0.001)
    node = TestNode()
    job = await submitted(node)
    record, run = node.executions.record, node.services.predictions.run
    refused, ran = 0, Counter[str | None]()

    async def away(execution: Execution, **options: Any) -> None:
        nonlocal refused
        refused += 1
        if refused <= 20 * ITEMS:
            raise Unavailable("The database is away.", code="database_unavailable")
        await record(execution, **options)

    async def counted(runnable: Runnable, request: PredictionRequest) -> Execution:
        ran[request.execution_id] += 1
        return await run(runnable, request)

    monkeypatch.setattr(node.executions, "record", away)
    monkeypatch.setattr(node.services.predictions, "run", counted)
    await worker_of(node).take("default", job.id, job.turn)
    assert await states(node, job) == ["completed"] * ITEMS
    assert set(ran.values()) == {1} and len(ran) == ITEMS
