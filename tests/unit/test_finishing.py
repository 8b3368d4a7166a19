"""Work that has to be done to its end."""

import asyncio

import pytest

from dspex.kit.finishing import finished


async def test_it_ends_however_often_whoever_waits_is_cancelled() -> None:
    begun, let = asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    async def work() -> str:
        begun.set()
        await let.wait()
        ended.append("work")
        return "done"

    waiting = asyncio.create_task(finished(work()))
    await begun.wait()
    for _ in range(3):
        waiting.cancel()
        await asyncio.sleep(0)
        assert not waiting.done()
    let.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == ["work"]


async def test_what_it_comes_to_is_handed_on() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        if not number:
            raise ValueError("no number")
        return number

    assert await finished(work(7)) == 7
    with pytest.raises(ValueError, match="no number"):
        await finished(work(0))
