"""The step that keeps lanes apart: with real tasks, cancelled at any moment."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.configuration.models import ModelSettings
from dspex.configuration.resilience import LaneSettings
from dspex.gateway.bulkhead import RANKS
from dspex.gateway.errors import LaneFull, LMServerError
from dspex.gateway.pipeline import Passage
from dspex.gateway.records import Lane, LanguageModelReply
from dspex.gateway.steps.lanes import Lanes, Occupancy
from dspex.kit.clock import SystemClock
from tests.clock import FakeClock
from tests.unit.gateway.calls import REPLY, Answers, passage

NOBODY = {lane: Occupancy(0, 0) for lane in RANKS}


class Holds:
    """Keeps every call until it is let go."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, passed: Passage) -> LanguageModelReply:
        self.running.append(passed.context.lane)
        await self.go.wait()
        return REPLY


def on(lanes: dict[str, Any], lane: Lane = "interactive", deadline: float | None = None) -> Passage:
    return passage({"lanes": lanes}, lane=lane, deadline=deadline)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_as_many_run_as_the_lane_has_room_and_the_others_follow_in_order() -> None:
    lanes, holds = Lanes(SystemClock()), Holds()
    tasks = [asyncio.create_task(lanes(on({"interactive": 2}), proceed=holds)) for _ in range(5)]
    await settle()
    assert len(holds.running) == 2
    assert lanes.occupancy("main")["interactive"] == Occupancy(2, 3)
    holds.go.set()
    assert await asyncio.gather(*tasks) == [REPLY] * 5
    assert lanes.occupancy("main") == NOBODY


async def test_new_settings_hold_for_those_who_came_before() -> None:
    lanes, holds = Lanes(SystemClock()), Holds()
    tasks = [asyncio.create_task(lanes(on({"interactive": 1}), proceed=holds)) for _ in range(4)]
    await settle()
    assert lanes.occupancy("main")["interactive"] == Occupancy(1, 3)
    lanes.renew({"main": ModelSettings(model="openai/x", lanes=LaneSettings(interactive=3))})
    await settle()
    assert lanes.occupancy("main")["interactive"] == Occupancy(3, 1)
    lanes.renew({"main": ModelSettings(model="openai/x", lanes=LaneSettings(interactive=1))})
    tasks[0].cancel()
    await settle()
    assert lanes.occupancy("main")["interactive"] == Occupancy(2, 1)
    lanes.renew({})
    holds.go.set()
    assert await asyncio.gather(*tasks[1:]) == [REPLY] * 3
    assert lanes.occupancy("main") == NOBODY


async def test_lanes_share_a_total_by_rank() -> None:
    lanes, holds = Lanes(SystemClock()), Holds()
    limits = {"total": 1}
    order: list[Lane] = ["optimization", "optimization", "evaluation", "interactive"]
    tasks = []
    for lane in order:
        tasks.append(asyncio.create_task(lanes(on(limits, lane), proceed=holds)))
        await settle()
    holds.go.set()
    await asyncio.gather(*tasks)
    assert holds.running == ["optimization", "interactive", "evaluation", "optimization"]


async def test_tuning_that_fills_its_lane_leaves_production_its_own() -> None:
    lanes, holds = Lanes(SystemClock()), Holds()
    tuning = [asyncio.create_task(lanes(on({}, "optimization"), proceed=holds)) for _ in range(50)]
    await settle()
    assert len(holds.running) == 10
    assert await lanes(on({}), proceed=Answers()) == REPLY
    holds.go.set()
    await asyncio.gather(*tuning)


async def test_who_waits_too_long_is_told_so() -> None:
    lanes, holds = Lanes(SystemClock()), Holds()
    limits = {"interactive": 1, "wait_s": 0.01}
    first = asyncio.create_task(lanes(on(limits), proceed=holds))
    await settle()
    with pytest.raises(LaneFull, match="1 interactive calls to the model 'main'") as raised:
        await lanes(on(limits), proceed=holds)
    assert (raised.value.kind, raised.value.code, raised.value.retry_after) == ("exhausted", "lane_full", 1)
    assert lanes.occupancy("main")["interactive"] == Occupancy(1, 0)
    holds.go.set()
    await first


@pytest.mark.parametrize(
    ("limits", "deadline"),
    [({"wait_s": 0}, None), ({"queue": 0}, None), ({}, 0.0)],
    ids=["no waiting", "no queue", "no time"],
)
async def test_without_room_time_or_a_queue_the_answer_comes_at_once(
    limits: dict[str, Any], deadline: float | None
) -> None:
    lanes, holds = Lanes(FakeClock()), Holds()
    limits = {"interactive": 1, **limits}
    first = asyncio.create_task(lanes(on(limits), proceed=holds))
    await settle()
    with pytest.raises(LaneFull):
        await lanes(on(limits, deadline=deadline), proceed=holds)
    holds.go.set()
    await first


async def test_a_failed_call_gives_its_slot_back() -> None:
    lanes = Lanes(SystemClock())
    with pytest.raises(LMServerError):
        await lanes(on({}), proceed=Answers([LMServerError("x")]))
    assert lanes.occupancy("main") == NOBODY


async def test_models_do_not_wait_for_each_other() -> None:
    lanes, holds = Lanes(SystemClock()), Holds()
    first = asyncio.create_task(lanes(on({"interactive": 1}), proceed=holds))
    await settle()
    assert await lanes(passage({"lanes": {"interactive": 1}}, model="other"), proceed=Answers()) == REPLY
    holds.go.set()
    await first


async def test_who_is_given_a_slot_while_being_cancelled_hands_it_on() -> None:
    lanes, holds = Lanes(SystemClock()), Holds()
    limits = {"interactive": 1}
    tasks = [asyncio.create_task(lanes(on(limits), proceed=holds)) for _ in range(3)]
    await settle()
    # In one turn of the loop: the first leaves, which gives the slot to the second, and the second is cancelled.
    tasks[0].cancel()
    asyncio.get_running_loop().call_soon(tasks[1].cancel)
    await settle()
    assert len(holds.running) == 2
    holds.go.set()
    assert await tasks[2] == REPLY
    assert lanes.occupancy("main") == NOBODY


moves = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.sampled_from(RANKS)),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("let one go"), st.integers(0, 50)),
        st.tuples(st.just("turn"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(moves, st.integers(1, 3), st.none() | st.integers(1, 3))
def test_no_slot_is_lost_whatever_is_cancelled_when(
    steps: list[tuple[str, Any]], limit: int, total: int | None
) -> None:
    limits = {"interactive": limit, "evaluation": limit, "optimization": limit, "total": total, "wait_s": 300}

    async def run() -> None:
        lanes, held = Lanes(SystemClock()), []
        tasks: list[asyncio.Task[LanguageModelReply]] = []

        async def proceed(_: Passage) -> LanguageModelReply:
            held.append(asyncio.Event())
            await held[-1].wait()
            return REPLY

        for move, which in steps:
            if move == "come":
                tasks.append(asyncio.create_task(lanes(on(limits, which), proceed=proceed)))
            elif move == "cancel" and tasks:
                tasks[which % len(tasks)].cancel()
            elif move == "let one go" and held:
                held[which % len(held)].set()
            elif move == "turn":
                await settle()
            running = sum(one.in_flight for one in lanes.occupancy("main").values())
            assert running <= (total or 9)
        while not all(task.done() for task in tasks):
            for one in held:
                one.set()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert lanes.occupancy("main") == NOBODY

    asyncio.run(run())
