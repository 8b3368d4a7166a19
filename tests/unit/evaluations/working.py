"""A node over memory whose evaluations are done by a worker that takes them when it is told to."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from dspex.access.records import Principal
from dspex.configuration.models import ModelSettings
from dspex.evaluations.metrics.records import MetricSpec, Score
from dspex.evaluations.records import Evaluation, ExampleResult, ResultFilter
from dspex.evaluations.rules import KIND
from dspex.evaluations.running import EvaluationHandler
from dspex.evaluations.scoring import Answered, MetricParts, Scorer, Scoring
from dspex.executions.ports import Keeper
from dspex.jobs.lease import Lease
from dspex.jobs.records import Job
from dspex.jobs.worker import Worker
from dspex.kit.clock import SystemClock
from tests.interfaces.node import TestNode, mock_program

Say = Callable[[Answered], Awaitable[Scoring]]


class Saying:
    """A scorer that says what the test wants."""

    def __init__(self, say: Say) -> None:
        self._say = say

    async def score(self, answered: Answered, principal: Principal) -> Scoring:
        return await self._say(answered)

    async def aclose(self) -> None:
        """Nothing is under way."""


class Parts:
    """`MetricParts` whose scorers are the test's own."""

    def __init__(self, say: Say) -> None:
        self._say = say

    registry: Mapping[str, ModelSettings] = {}

    def check_model(self, metric: MetricSpec) -> str | None:
        return None

    async def check_code(self, metric: MetricSpec, principal: Principal) -> None:
        """There is none."""

    async def priced(self, model: str) -> bool:
        return True

    async def scorer(self, evaluation: Evaluation, keeper: Keeper) -> Scorer:
        return Saying(self._say)


async def right(answered: Answered) -> Scoring:
    return Scoring(Score(1.0))


@dataclass
class House:
    node: TestNode = field(default_factory=TestNode)
    parts: MetricParts | None = None
    name: str = "me"

    def __post_init__(self) -> None:
        self.worker = self.another(self.name)

    def another(self, name: str) -> Worker:
        """A worker of its own, on the same stores."""
        clock, services = SystemClock(), self.node.services

        async def beat() -> None: ...

        handler = EvaluationHandler(
            services.predictions,
            self.node.evaluations,
            self.node.datasets,
            self.node.executions,
            services.keys,
            self.parts or services.evaluations.metrics,
            clock,
        )
        lease = Lease(beat, clock)
        worker = Worker(
            self.node.job_store,
            self.node.job_changes,
            {KIND: handler},
            lease,
            clock,
            self.node.facts,
            name,
        )
        lease.look_after = worker.look_after
        self.node.signals.on("jobs.cancelled", lambda told: worker.cancel(told["project"], told["id"]))
        return worker

    async def ask(self, client: httpx.AsyncClient, **more: Any) -> str:
        """An evaluation of `qa` over `rows`; its id."""
        body = {"program": "qa", "dataset": "rows", **more}
        answer = await client.post("/v1/evaluations", json=body)
        assert answer.status_code == 202, answer.text
        made: str = answer.json()["id"]
        return made

    async def take(self, evaluation_id: str, worker: Worker | None = None) -> Evaluation:
        """One turn of it, to its end."""
        job = await self.job(evaluation_id)
        await (worker or self.worker).take("default", evaluation_id, job.turn)
        return await self.now(evaluation_id)

    async def now(self, evaluation_id: str) -> Evaluation:
        return await self.node.services.evaluations.get("default", evaluation_id)

    async def job(self, evaluation_id: str) -> Job:
        return await self.node.services.jobs.get("default", evaluation_id)

    async def results(self, evaluation_id: str) -> list[ExampleResult]:
        page = await self.node.evaluations.results(
            "default", evaluation_id, ResultFilter(), limit=10_000, cursor=None
        )
        return list(page.data)


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that happens in another task; fails after a minute."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def prepared(client: httpx.AsyncClient, count: int = 10, **mock: Any) -> None:
    """`qa`, which answers "yes", and `rows`, of which each third expects "no"."""
    await mock_program(client, "qa", mock={"outputs": {"answer": "yes"}, **mock})
    rows = [
        {"inputs": {"question": f"{at}?"}, "outputs": {"answer": "yes" if at % 3 else "no"}}
        for at in range(1, count + 1)
    ]
    assert (await client.post("/v1/datasets", json={"name": "rows", "rows": rows})).status_code == 201
