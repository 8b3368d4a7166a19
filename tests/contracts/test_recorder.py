"""The group-commit writer on real databases."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.configuration.settings import Settings, Storage
from dspex.executions.records import ExecutionFilter
from dspex.kit.errors import Internal, Unavailable
from dspex.storage import execution_writer
from dspex.storage.opening import Database, open_database
from dspex.storage.sqlite import file as sqlite
from tests.making import execution


def opened(url: str, durability: Any = "normal") -> Any:
    return open_database(Settings(database_url=url, storage=Storage(durability=durability)))


async def stored_ids(database: Database) -> set[str]:
    ids: set[str] = set()
    cursor = None
    while True:
        page = await database.executions.list(
            "default", ExecutionFilter(), sort="created_at", limit=200, cursor=cursor
        )
        ids |= {one.id for one in page.data}
        if (cursor := page.next_cursor) is None:
            return ids


@asynccontextmanager
async def write_lock(url: str) -> AsyncIterator[None]:
    """Nobody else writes to the SQLite file meanwhile."""
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.parametrize("durability", ["normal", "full"])
async def test_what_is_acknowledged_is_there(database_url: str, durability: str) -> None:
    async with opened(database_url, durability) as database, opened(database_url) as onlooker:
        many = [execution() for _ in range(600)]

        async def record(one: Any) -> None:
            await database.recorder.record(one)
            assert await onlooker.executions.get("default", one.id) == one

        await asyncio.gather(*(record(one) for one in many[:16]))
        await asyncio.gather(*(database.recorder.record(one) for one in many))
        assert await stored_ids(onlooker) == {one.id for one in many}


async def test_leaving_commits_what_was_acknowledged_early(database_url: str) -> None:
    many = [execution() for _ in range(700)]
    async with opened(database_url, "relaxed") as database:
        for one in many:
            await database.recorder.record(one)
    async with opened(database_url) as database:
        assert await stored_ids(database) == {one.id for one in many}


async def test_what_has_to_be_certain_is_there_when_it_is_acknowledged(database_url: str) -> None:
    async with opened(database_url, "relaxed") as database, opened(database_url) as onlooker:
        early = [asyncio.create_task(database.recorder.record(execution())) for _ in range(300)]
        await asyncio.gather(*early)
        certain = execution()
        await database.recorder.record(certain, certain=True)
        assert certain.id in await stored_ids(onlooker)


async def test_a_later_record_replaces_the_earlier(database_url: str) -> None:
    async with opened(database_url) as database:
        running = execution(status="running")
        await database.executions.save([running])
        done = replace(running, status="completed")
        await asyncio.gather(database.recorder.record(running), database.recorder.record(done))
        assert await database.executions.get("default", running.id) == done


async def test_a_bad_row_fails_alone(database_url: str) -> None:
    async with opened(database_url) as database:
        good = [execution() for _ in range(5)]
        bad = execution(status=None)
        outcomes = await asyncio.gather(
            *(database.recorder.record(one) for one in (*good[:3], bad, *good[3:])), return_exceptions=True
        )
        assert [type(one) for one in outcomes] == [type(None)] * 3 + [Internal] + [type(None)] * 2
        assert await stored_ids(database) == {one.id for one in good}


async def test_a_caller_who_goes_away_harms_nobody(database_url: str) -> None:
    async with opened(database_url) as database:
        many = [execution() for _ in range(20)]
        tasks = [asyncio.create_task(database.recorder.record(one)) for one in many]
        await asyncio.sleep(0)
        tasks[7].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in outcomes].count(type(None)) == 19
        assert {one.id for one in many} - {many[7].id} <= await stored_ids(database)


async def test_a_full_queue_refuses_at_once(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution_writer, "QUEUE", 3)
    async with opened(sqlite_url) as database:
        async with write_lock(sqlite_url):
            first = asyncio.create_task(database.recorder.record(execution()))
            # The first leaves the queue for the writer; the next three fill it.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            queued = [asyncio.create_task(database.recorder.record(execution())) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(Unavailable) as refused:
                await database.recorder.record(execution())
            assert (refused.value.code, refused.value.retry_after) == ("recorder_full", 1)
        await asyncio.gather(first, *queued)
        assert len(await stored_ids(database)) == 4


async def test_nothing_is_taken_while_shutting_down(database_url: str) -> None:
    async with opened(database_url) as database:
        await database.recorder.record(execution())
        await database.recorder.close()
        with pytest.raises(Unavailable, match="shutting down"):
            await database.recorder.record(execution())


async def test_what_is_recorded_behind_is_there_soon_and_after_leaving(database_url: str) -> None:
    many = [execution() for _ in range(300)]
    async with opened(database_url) as database:
        for one in many:
            await database.recorder.record(one, behind=True)
        # In the order of the queue: once this one is committed, those before are.
        await database.recorder.record(execution(id="last"))
        assert await stored_ids(database) == {one.id for one in many} | {"last"}
        late = [execution() for _ in range(300)]
        for one in late:
            await database.recorder.record(one, behind=True)
    async with opened(database_url) as database:
        assert {one.id for one in (*many, *late)} < await stored_ids(database)


async def test_what_was_acknowledged_waits_for_a_database_that_is_away(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.02)
    monkeypatch.setattr(execution_writer, "AGAIN_S", 0.01)
    async with opened(sqlite_url) as database:
        behind = [execution() for _ in range(10)]
        async with write_lock(sqlite_url):
            for one in behind:
                await database.recorder.record(one, behind=True)
            with pytest.raises(Unavailable):
                await database.recorder.record(execution())
        await database.recorder.record(execution(id="last"))
        assert await stored_ids(database) == {one.id for one in behind} | {"last"}


async def test_behind_a_full_queue_it_waits_for_a_place(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution_writer, "QUEUE", 3)
    monkeypatch.setattr(execution_writer, "ROOM_S", 0.05)
    async with opened(sqlite_url) as database:
        async with write_lock(sqlite_url):
            # Three leave the queue for the writer, three more fill it.
            for _ in range(6):
                await database.recorder.record(execution(), behind=True)
            with pytest.raises(Unavailable) as refused:
                await database.recorder.record(execution(), behind=True)
            assert refused.value.code == "recorder_full"
            monkeypatch.setattr(execution_writer, "ROOM_S", 30)
            waiting = asyncio.create_task(database.recorder.record(execution(id="patient"), behind=True))
            await asyncio.sleep(0.01)
            assert not waiting.done()
        await waiting
        await database.recorder.record(execution(id="last"))
        ids = await stored_ids(database)
        assert len(ids) == 8 and {"patient", "last"} < ids


async def test_while_commits_fail_a_model_need_not_be_asked(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.02)
    monkeypatch.setattr(execution_writer, "AWAY_S", 0.2)
    async with opened(sqlite_url) as database:
        database.recorder.check()
        async with write_lock(sqlite_url):
            with pytest.raises(Unavailable):
                await database.recorder.record(execution())
            with pytest.raises(Unavailable) as refused:
                database.recorder.check()
            assert refused.value.code == "database_unavailable"
        # Somebody has to find out that it is back.
        await asyncio.sleep(0.25)
        database.recorder.check()
        await database.recorder.record(execution())
        database.recorder.check()
