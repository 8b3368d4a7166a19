"""What processes share of alerts: over memory, SQLite and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.configuration.alerting import AlertThresholds
from dspex.configuration.settings import Settings
from dspex.observability.ports import AlertBoard
from dspex.observability.records import Alert, Part
from dspex.providers.memory.alerts import MemoryAlertBoard
from dspex.storage.opening import open_database
from tests.making import NOON, minutes

OWN = AlertThresholds(slow_execution_s=60, error_rate=0.5)
EVER = {"since": NOON - minutes(60), "until": NOON + minutes(60)}


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def boards(request: pytest.FixtureRequest) -> AsyncIterator[tuple[AlertBoard, AlertBoard]]:
    """As two processes have it."""
    if request.param == "memory":
        board = MemoryAlertBoard()
        yield board, board
        return
    settings = Settings(database_url=request.getfixturevalue(f"{request.param}_url"))
    async with open_database(settings) as one, open_database(settings) as other:
        yield one.alerts, other.alerts


def part(program: str = "qa", **changes: Any) -> Part:
    given: dict[str, Any] = {
        "project": "default",
        "program": program,
        "began": NOON,
        "ended": 4,
        "failed": 1,
        "slowest_s": 1.5,
        "slowest_pool_s": 0.25,
        **changes,
    }
    return Part(**given)


def alert(**changes: Any) -> Alert:
    given: dict[str, Any] = {
        "id": "a1",
        "rule": "error_rate",
        "project": "default",
        "program": "qa\x00",
        "node": "node-1",
        "value": 0.25,
        "threshold": 0.1,
        "message": "25.0% of qa's executions failed.",
        "raised_at": NOON,
        **changes,
    }
    return Alert(**given)


async def test_what_processes_saw_of_a_program_is_one_part(boards: tuple[AlertBoard, AlertBoard]) -> None:
    one, other = boards
    await one.add([part(), part("strange\x00", project="p2")])
    await other.add([part(ended=6, failed=0, slowest_s=0.5, slowest_pool_s=3.0)])
    await one.add([part(began=NOON + minutes(1), ended=1)])
    for board in boards:
        seen = {(each.project, each.program): each for each in await board.seen(**EVER)}
        assert seen == {
            ("default", "qa"): part(
                began=NOON + minutes(1), ended=11, failed=2, slowest_s=1.5, slowest_pool_s=3.0
            ),
            ("p2", "strange\x00"): part("strange\x00", project="p2"),
        }


async def test_of_many_at_once_none_is_lost(boards: tuple[AlertBoard, AlertBoard]) -> None:
    parts = [part(f"p{number}") for number in range(5)]
    await asyncio.gather(*(boards[turn % 2].add(parts) for turn in range(10)))
    seen = await boards[0].seen(**EVER)
    assert sorted((each.program, each.ended, each.failed) for each in seen) == [
        (f"p{number}", 40, 10) for number in range(5)
    ]


async def test_a_window_has_what_began_in_it(boards: tuple[AlertBoard, AlertBoard]) -> None:
    board, _ = boards
    for minute in range(10):
        await board.add([part(began=NOON + minutes(minute), ended=1, slowest_s=float(minute))])
    (seen,) = await board.seen(since=NOON + minutes(6), until=NOON + minutes(8))
    assert (seen.ended, seen.slowest_s, seen.began) == (2, 8.0, NOON + minutes(8))
    assert await board.seen(since=NOON + minutes(9), until=NOON + minutes(20)) == []


async def test_a_program_has_the_thresholds_of_its_last_execution(
    boards: tuple[AlertBoard, AlertBoard],
) -> None:
    board, _ = boards
    await board.add([part(thresholds=OWN)])
    await board.add([part(began=NOON + minutes(1))])
    await board.add([part(began=NOON + minutes(2), thresholds=OWN)])
    (seen,) = await board.seen(**EVER)
    assert (seen.ended, seen.thresholds) == (12, OWN)
    await board.add([part(began=NOON + minutes(2))])
    (seen,) = await board.seen(**EVER)
    assert (seen.ended, seen.thresholds) == (16, None)


async def test_of_many_who_raise_an_alert_one_does(boards: tuple[AlertBoard, AlertBoard]) -> None:
    tried = [alert(id=f"a{number}") for number in range(8)]
    raised = await asyncio.gather(*(boards[turn % 2].open(one) for turn, one in enumerate(tried)))
    assert sum(raised) == 1
    first = tried[raised.index(True)]
    for board in boards:
        ((kept, told_at),) = [(each.alert, each.told_at) for each in await board.active()]
        assert (kept, told_at) == (first, NOON)
    others = [alert(id="b", rule="slow_execution"), alert(id="c", program="x"), alert(id="d", project="p2")]
    assert [await boards[0].open(one) for one in others] == [True, True, True]


async def test_of_many_who_remind_and_resolve_one_does(boards: tuple[AlertBoard, AlertBoard]) -> None:
    one, other = boards
    await one.open(alert())
    later = NOON + minutes(60)
    reminded = [await board.remind(alert(), told_at=NOON, at=later) for board in (one, other, one)]
    assert reminded == [True, False, False]
    (lasting,) = await other.active()
    assert lasting.told_at == later
    over = alert(value=0.5, message="50.0% failed.", resolved_at=later)
    assert sum(await asyncio.gather(*(board.close(over) for board in (one, other)))) == 1
    assert await one.active() == []
    assert not await one.remind(alert(), told_at=later, at=later + minutes(60))
    for board in boards:
        assert await board.recent("default", limit=5) == [over]
        assert await board.recent("p2", limit=5) == []


async def test_after_one_is_over_another_may_be_raised(boards: tuple[AlertBoard, AlertBoard]) -> None:
    board, _ = boards
    for number in range(3):
        one = alert(id=f"a{number}")
        assert await board.open(one)
        assert await board.close(replace(one, resolved_at=NOON + minutes(number)))
    assert [one.id for one in await board.recent("default", limit=2)] == ["a2", "a1"]


async def test_what_is_of_no_use_is_deleted(boards: tuple[AlertBoard, AlertBoard]) -> None:
    board, _ = boards
    await board.add([part(began=NOON + minutes(minute), ended=1) for minute in range(-5, 6)])
    for number in range(3):
        await board.open(alert(id=f"a{number}"))
        await board.close(alert(id=f"a{number}", resolved_at=NOON + minutes(number)))
    await board.open(alert(id="lasting"))
    await board.prune(
        parts_before=NOON - minutes(1), parts_after=NOON + minutes(2), resolved_before=NOON + minutes(2)
    )
    (seen,) = await board.seen(**EVER)
    assert seen.ended == 4
    assert [one.id for one in await board.recent("default", limit=5)] == ["a2"]
    assert [one.alert.id for one in await board.active()] == ["lasting"]
