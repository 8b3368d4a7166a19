"""A command that does its job itself: until it is over, paused, or left."""

import asyncio
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from dspex.interfaces.cli import doing_here
from dspex.interfaces.cli.doing_here import done_here, finished
from dspex.interfaces.cli.waiting import Left
from dspex.kit.errors import Unavailable


class Working:
    """`cli.ports.WorkingHere` of a job that ends when it is told to."""

    services: Any = None

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.gave_back = False

    async def declare(self, project: str) -> None: ...

    async def finish(self, project: str, job_id: str, stop: asyncio.Event) -> None:
        waits = [asyncio.create_task(one.wait()) for one in (self.over, stop)]
        _, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in others:
            one.cancel()
        self.gave_back = stop.is_set()

    async def elsewhere(self, project: str, job_id: str) -> str | None:
        return None


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doing_here, "LOOK_S", 0.001)


def test_who_interrupts_before_there_is_a_job_is_told_that_nothing_is_left() -> None:
    application = Mock()
    application.load_settings.return_value = (None, None)
    application.working_here.side_effect = KeyboardInterrupt
    with pytest.raises(Left, match="stopped before anything was begun; there is nothing to resume"):
        done_here(application, None, "eval", "default", None, AsyncMock(), None, AsyncMock())


async def test_the_work_goes_on_while_nobody_can_look() -> None:
    here, looks = Working(), 0

    async def look() -> str:
        nonlocal looks
        looks += 1
        if looks == 3:
            here.over.set()
        raise Unavailable("The database is away.")

    await finished(here, "default", "j", look)
    assert (looks >= 3, here.gave_back) == (True, False)


async def test_what_somebody_paused_is_given_back() -> None:
    here = Working()
    states = iter(("running", "paused"))

    async def look() -> str:
        return next(states)

    await finished(here, "default", "j", look)
    assert here.gave_back


async def test_who_leaves_gives_the_job_back_first() -> None:
    here, looked = Working(), asyncio.Event()

    async def look() -> str:
        looked.set()
        return "running"

    waiting = asyncio.create_task(finished(here, "default", "j", look))
    await looked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert here.gave_back
