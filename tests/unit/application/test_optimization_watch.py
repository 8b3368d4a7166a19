"""What a serving node finds out about optimizations that run elsewhere."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.application.optimization_watch import PAGE, OptimizationWatch
from dspex.configuration.alerting import AlertSettings, AlertThresholds
from dspex.kit.errors import Missing
from dspex.kit.facts import Facts
from dspex.observability.alerts import Alerts
from dspex.optimizations.ports import OptimizationReader
from dspex.optimizations.records import Optimization
from dspex.programs.records import ProgramSettings
from dspex.providers.memory.alerts import MemoryAlertBoard
from dspex.providers.memory.jobs import MemoryJobs
from dspex.providers.memory.optimizations import MemoryJournal, MemoryOptimizations
from tests.making import NOON, minutes, optimization, program
from tests.unit.observability.given import FakeClock

GEPA = ("GEPA", "success")


class Programs:
    async def get(self, project: str, name: str) -> Any:
        if name == "gone":
            raise Missing("no such program")
        own = AlertThresholds(long_optimization_s=10_000.0) if name == "patient" else None
        return replace(program(name=name), settings=ProgramSettings(alerts=own))


class House:
    def __init__(self) -> None:
        self.clock = FakeClock(0.0)
        self.jobs = MemoryJobs()
        self.store = MemoryOptimizations(self.jobs, MemoryJournal())
        self.counted: Mapping[tuple[str, str], int] = {("optimization", "completed"): 1}
        self.watch = self.watch_of(self.store)
        board = MemoryAlertBoard()
        self.alerts = Alerts(AlertSettings(), Facts(), self.clock, "n", board, self.watch.running)

    def watch_of(self, store: OptimizationReader) -> OptimizationWatch:
        programs: Any = Programs()
        return OptimizationWatch(lambda: self.counted, self.jobs, store, programs, self.clock)

    async def ended(self, at: timedelta, **changes: Any) -> Optimization:
        given = {"optimizer": "GEPA", "state": "completed", "started_at": NOON, **changes}
        added, job = optimization(completed_at=NOON + at, **given)
        return await self.store.add(added, job)

    def count(self) -> int:
        figures = self.watch.figures()
        assert figures is not None
        return figures.ended[GEPA]


@pytest.fixture
def house() -> House:
    return House()


async def test_each_end_counts_once_whenever_it_was_written(house: House) -> None:
    for number in range(PAGE + 2):
        await house.ended(minutes(number / 100))
    await house.watch.look()
    assert house.count() == PAGE + 2
    await house.watch.look()
    assert house.count() == PAGE + 2
    # Taken before the others' ends, and written after them.
    await house.ended(minutes(0.001))
    await house.ended(minutes(30))
    await house.watch.look()
    assert house.count() == PAGE + 4


async def test_one_that_was_retried_by_hand_ends_again(house: House) -> None:
    once = await house.ended(minutes(1))
    await house.watch.look()
    house.store._rows[once.project, once.id] = replace(once, completed_at=NOON + minutes(5))
    await house.watch.look()
    assert house.count() == 2


async def test_without_any_on_record_nothing_is_asked(house: House) -> None:
    house.counted = {("batch", "running"): 3}
    house.watch = house.watch_of(None)  # type: ignore[arg-type]
    await house.watch.look()
    assert house.watch.figures() is None


async def test_what_runs_for_long_raises_an_alert_until_it_is_over(house: House) -> None:
    house.counted = {("optimization", "running"): 3}
    for name in ("slow", "patient", "gone"):
        _, job = optimization(program=name)
        await house.jobs.add(replace(job, subject=name, state="running", started_at=NOON))
    house.clock.seconds = 299.0
    await house.alerts.look()
    assert house.alerts.active("default") == []
    house.clock.seconds = 301.0
    await house.alerts.look()
    active = house.alerts.active("default")
    assert {(one.rule, one.program, one.value) for one in active} == {
        ("long_optimization", "slow", 301.0),
        ("long_optimization", "gone", 301.0),
    }
    # Also before it is counted.
    for job in await house.jobs.running():
        assert await house.jobs.change(job, replace(job, state="completed"))
    await house.alerts.look()
    assert house.alerts.active("default") == []
