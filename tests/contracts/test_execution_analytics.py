"""What figures over executions promise, over memory, SQLite and PostgreSQL."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from dspex.configuration.settings import Settings
from dspex.executions.ports import ExecutionAnalytics, ExecutionStore
from dspex.executions.records import METRICS, Activity, Distribution
from dspex.providers.memory.analytics import MemoryAnalytics
from dspex.providers.memory.executions import MemoryExecutions, MemoryNodes
from dspex.storage.opening import open_database
from tests.making import NOON, execution, minutes

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Figures:
    executions: ExecutionStore
    analytics: ExecutionAnalytics

    async def have(self, *durations_ms: float, **changes: Any) -> None:
        """An execution a minute from noon on."""
        await self.executions.save(
            [
                execution(
                    duration_ms=duration_ms,
                    **{"created_at": NOON + minutes(number), "cost_usd": 0.5, **changes},
                )
                for number, duration_ms in enumerate(durations_ms)
            ]
        )

    async def of(
        self,
        metric: str = "duration_ms",
        *,
        program: str | None = None,
        since: datetime = NOON,
        until: datetime = NOON + HOUR,
    ) -> Distribution:
        whole, _ = await self.analytics.distribution(
            "default", metric, program=program, since=since, until=until, bucket=None
        )
        return whole


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def figures(request: pytest.FixtureRequest) -> AsyncIterator[Figures]:
    if request.param == "memory":
        executions = MemoryExecutions(MemoryNodes())
        yield Figures(executions, MemoryAnalytics(executions))
        return
    url = request.getfixturevalue(f"{request.param}_url")
    async with open_database(Settings(database_url=url)) as database:
        yield Figures(database.executions, database.analytics)


async def test_a_metric_is_described_by_its_distribution(figures: Figures) -> None:
    await figures.have(*(float(number) for number in range(1, 11)))
    found = await figures.of()
    assert (found.count, found.sum, found.avg, found.min, found.max) == (10, 55.0, 5.5, 1.0, 10.0)
    assert found.p50 == pytest.approx(5.5)
    assert found.p95 == pytest.approx(9.55)
    assert found.p99 == pytest.approx(9.91)


async def test_without_executions_there_is_nothing_to_describe(figures: Figures) -> None:
    assert await figures.of() == Distribution()


@pytest.mark.parametrize("metric", METRICS)
async def test_every_metric_can_be_asked_for(figures: Figures, metric: str) -> None:
    usage = {"input_tokens": 4, "output_tokens": 4, "total_tokens": 4}
    await figures.have(4.0, overhead_ms=4.0, cost_usd=4.0, saved_usd=4.0, usage=usage)
    assert (await figures.of(metric)).avg == 4.0


async def test_executions_without_a_price_have_no_cost_instead_of_none(figures: Figures) -> None:
    await figures.have(1.0, 2.0)
    await figures.have(3.0, cost_usd=None)
    assert (await figures.of("cost_usd")).count == 2


async def test_only_the_project_the_program_and_the_time_count(figures: Figures) -> None:
    await figures.have(1.0, 2.0, 3.0)
    await figures.have(100.0, program="other")
    await figures.have(1000.0, project="somebody else's")
    assert (await figures.of(program="qa")).max == 3.0
    assert (await figures.of()).max == 100.0
    # Since is inclusive, until is not.
    between = await figures.of(program="qa", since=NOON + minutes(1), until=NOON + minutes(2))
    assert (between.count, between.min) == (1, 2.0)


async def test_buckets_lie_one_after_the_other_and_may_be_empty(figures: Figures) -> None:
    await figures.have(1.0, 2.0, 3.0, 4.0)
    whole, buckets = await figures.analytics.distribution(
        "default",
        "duration_ms",
        program=None,
        since=NOON,
        until=NOON + minutes(7),
        bucket=minutes(2),
    )
    assert whole.count == 4
    assert [(one.start, one.distribution.count) for one in buckets] == [
        (NOON, 2),
        (NOON + minutes(2), 2),
        (NOON + minutes(4), 0),
        (NOON + minutes(6), 0),
    ]
    assert buckets[1].distribution.avg == 3.5


async def test_activity_is_what_happened_in_a_stretch_of_time(figures: Figures) -> None:
    await figures.have(10.0, 20.0, cache="hit", session_id="s1", saved_usd=0.25)
    await figures.have(30.0, cache="miss", session_id="s2")
    await figures.have(40.0, status="failed", cost_usd=None)
    await figures.have(50.0, status="cancelled")
    await figures.have(60.0, project="somebody else's", session_id="s3")
    found = await figures.analytics.activity("default", since=NOON, until=NOON + HOUR)
    assert found == Activity(
        executions=5,
        completed=3,
        failed=1,
        cache_hits=2,
        cache_misses=1,
        sessions=2,
        cost_usd=2.0,
        saved_usd=0.5,
        duration_p95_ms=pytest.approx(48.0),
    )
    assert (found.error_rate, found.hit_rate) == (0.25, pytest.approx(2 / 3))


async def test_nothing_happened_is_no_rate_of_zero(figures: Figures) -> None:
    found = await figures.analytics.activity("default", since=NOON, until=NOON + HOUR)
    assert (found.executions, found.error_rate, found.hit_rate, found.duration_p95_ms) == (
        0,
        None,
        None,
        None,
    )


async def test_sums_have_no_noise_of_binary_fractions(figures: Figures) -> None:
    for usd in (0.1, 0.2):
        await figures.have(1.0, cost_usd=usd, saved_usd=usd)
    assert (await figures.of("cost_usd")).sum == 0.3
    found = await figures.analytics.activity("default", since=NOON, until=NOON + HOUR)
    assert (found.cost_usd, found.saved_usd) == (0.3, 0.3)
