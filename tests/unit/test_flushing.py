"""What gathers is written beside the work, and nothing that was taken to be written is lost."""

import asyncio

import pytest

from dspex.kit.flushing import Flushing


class Book:
    """Takes what gathered and writes it down, which takes its time."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.gathered: list[int] = []
        self.written: list[int] = []
        self.writing = asyncio.Event()
        self._takes_s = takes_s

    async def write(self) -> None:
        taken, self.gathered = self.gathered, []
        self.writing.set()
        await asyncio.sleep(self._takes_s)
        self.written += taken


async def test_what_is_under_way_at_the_end_is_written_and_what_came_behind_it() -> None:
    book = Book(takes_s=0.05)
    flushing = Flushing(book.write, 0.01)
    book.gathered.append(1)
    flushing.start()
    await book.writing.wait()
    book.gathered.append(2)
    await flushing.aclose()
    assert book.written == [1, 2]


async def test_who_closes_it_and_is_cancelled_waits_all_the_same() -> None:
    book = Book(takes_s=0.05)
    flushing = Flushing(book.write, 0.01)
    book.gathered.append(1)
    flushing.start()
    await book.writing.wait()
    closing = asyncio.create_task(flushing.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert book.written == [1]


async def test_it_writes_at_its_time_and_sooner_when_told() -> None:
    book = Book()
    often, seldom = Flushing(book.write, 0.001), Flushing(book.write, 600)
    often.start()
    book.gathered.append(1)
    async with asyncio.timeout(30):
        while book.written != [1]:
            await asyncio.sleep(0.001)
        await often.aclose()
        seldom.start()
        book.gathered.append(2)
        seldom.soon()
        while book.written != [1, 2]:
            await asyncio.sleep(0.001)
    await seldom.aclose()


async def test_a_write_that_fails_is_told_at_the_end() -> None:
    async def fail() -> None:
        raise ValueError("no room")

    flushing = Flushing(fail, 600)
    flushing.start()
    with pytest.raises(ValueError, match="no room"):
        await flushing.aclose()


async def test_after_a_write_that_failed_comes_another() -> None:
    tries = 0

    async def fail_at_first() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ValueError("no room")

    flushing = Flushing(fail_at_first, 0.001)
    flushing.start()
    async with asyncio.timeout(30):
        while tries < 3:
            await asyncio.sleep(0.001)
    await flushing.aclose()


async def test_what_was_never_started_has_nothing_to_end() -> None:
    book = Book()
    await Flushing(book.write, 600).aclose()
    assert not book.writing.is_set()
