"""A SQLite file that goes away under its node: nothing is acknowledged into a file without a name."""

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dspex.configuration.settings import Settings
from dspex.kit.errors import Unavailable
from dspex.storage.opening import Database, open_database
from tests.making import NOON, execution

DOORS: dict[str, Callable[[Database], Awaitable[object]]] = {
    "recorder": lambda database: database.recorder.record(execution()),
    "heartbeat": lambda database: database.nodes.beat("n", NOON),
    "ready": lambda database: database.ping(),
}


async def replaced(work: Awaitable[object]) -> None:
    with pytest.raises(Unavailable) as refused:
        await work
    assert refused.value.code == "database_replaced"
    assert "restart" in refused.value.message


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("instead", ["nothing", "another file"])
async def test_until_the_file_is_back_nothing_is_acknowledged(
    sqlite_url: str, tmp_path: Path, migrated_sqlite: Path, door: str, instead: str
) -> None:
    path, aside = tmp_path / "dspex.db", tmp_path / "aside.db"
    async with open_database(Settings(database_url=sqlite_url)) as database:
        before = execution()
        await database.recorder.record(before)
        path.rename(aside)
        if instead == "another file":
            shutil.copyfile(migrated_sqlite, path)
        for _ in range(2):
            await replaced(DOORS[door](database))
        assert path.exists() == (instead == "another file"), "a new, empty file would hide the loss"
        aside.replace(path)
        await DOORS[door](database)
        assert await database.executions.get("default", before.id) == before


async def test_a_restarted_node_uses_the_file_that_is_there(
    sqlite_url: str, tmp_path: Path, migrated_sqlite: Path
) -> None:
    path = tmp_path / "dspex.db"
    settings = Settings(database_url=sqlite_url)
    async with open_database(settings) as database:
        await database.recorder.record(execution())
        for name in ("dspex.db", "dspex.db-wal", "dspex.db-shm"):
            (tmp_path / name).unlink()
        shutil.copyfile(migrated_sqlite, path)
        await replaced(database.recorder.record(execution()))
    async with open_database(settings) as database:
        one = execution()
        await database.recorder.record(one)
        assert await database.executions.get("default", one.id) == one


async def test_a_file_that_goes_while_a_record_is_committed(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_database(Settings(database_url=sqlite_url)) as database:
        await database.recorder.record(execution())
        writer = database.recorder._writer
        insert = writer._insert  # type: ignore[attr-defined]

        def insert_and_lose(rows: object) -> None:
            insert(rows)
            (tmp_path / "dspex.db").unlink()

        monkeypatch.setattr(writer, "_insert", insert_and_lose)
        await replaced(database.recorder.record(execution()))
