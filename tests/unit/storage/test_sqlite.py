"""What answers from a SQLite file before SQLAlchemy is loaded, and how that comes in."""

import asyncio
import contextlib
import gc
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from dspex.access.audit import Audit
from dspex.application.declaring import check, declare
from dspex.application.maintenance import Maintenance
from dspex.application.origin import Origin
from dspex.configuration.settings import ProgramEntry, Retention, Settings
from dspex.executions.records import COST_GROUPS, CostGroup, ExecutionFilter
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Unavailable
from dspex.kit.facts import Facts
from dspex.kit.signals import LocalSignals
from dspex.programs.python_signatures import PythonSignatures
from dspex.programs.service import ProgramService
from dspex.storage.batches import upsert_statement
from dspex.storage.dialects.sqlite import SqliteDialect
from dspex.storage.later import Deferred, SqlStoresLater
from dspex.storage.opening import open_database
from dspex.storage.sql_stores import SqlStores, open_sql_stores
from dspex.storage.sqlite import file as file_module
from dspex.storage.sqlite import opening
from dspex.storage.sqlite.file import SqliteFile, path_of
from dspex.storage.sqlite.statements import SqliteStatements
from dspex.storage.stores.execution_reader import conditions, costs_query
from dspex.storage.stores.execution_rows import COLUMNS, KEY
from dspex.storage.tables import executions
from tests.making import NOON, program
from tests.unit.programs.compiling import Compiler

# What each list of executions is read by.
INDEXES = {
    "executions_created": ExecutionFilter(),
    "executions_program": ExecutionFilter(program="qa"),
    "executions_request": ExecutionFilter(request_id="r"),
    "executions_session": ExecutionFilter(session_id="s"),
    "executions_key": ExecutionFilter(key_id="k"),
    "executions_not_completed": ExecutionFilter(status="failed"),
}
BEAT = "INSERT INTO nodes (node, last_beat) VALUES (?, ?)"


@pytest.fixture
def file(sqlite_url: str) -> SqliteFile:
    return SqliteFile(path_of(sqlite_url), "normal")


def open_connections() -> int:
    return sum(type(one).__name__ == "Configured" for one in gc.get_objects())


async def test_the_file_is_nobody_elses_to_read(tmp_path: Path) -> None:
    made = SqliteFile(str(tmp_path / "below" / "dspex.db"), "normal")
    await made.prepare()
    with contextlib.closing(made.connect()) as connection:
        connection.execute("CREATE TABLE some (id INTEGER)")
        modes = {one.name: one.stat().st_mode & 0o777 for one in (tmp_path / "below").iterdir()}
    assert modes == dict.fromkeys(("dspex.db", "dspex.db-wal", "dspex.db-shm"), 0o600)
    assert (tmp_path / "below").stat().st_mode & 0o777 == 0o700


def test_rows_are_made_for_the_columns_of_the_table(file: SqliteFile) -> None:
    assert tuple(executions.columns.keys()) == COLUMNS
    statement = upsert_statement("executions", COLUMNS, KEY, ["?"] * len(COLUMNS))
    assert statement == SqliteDialect(file).upsert(executions)


async def test_statements_at_once_do_not_wait_for_each_other(file: SqliteFile) -> None:
    statements = SqliteStatements(file)
    await asyncio.gather(*(statements.write(BEAT, f"n{number}", NOON) for number in range(20)))
    found = await asyncio.gather(*(statements.read("SELECT node FROM nodes") for _ in range(20)))
    assert [len(rows) for rows in found] == [20] * 20
    statements.close()


async def test_a_lock_that_stays_is_unavailable_and_then_forgotten(
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "BUSY_TIMEOUT_S", 0.05)
    statements = SqliteStatements(file)
    other = sqlite3.connect(file.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="lock"):
        await statements.write(BEAT, "n", NOON)
    assert await statements.read("SELECT node FROM nodes") == []
    other.execute("ROLLBACK")
    other.close()
    assert await statements.write(BEAT, "n", NOON) == 1
    statements.close()


async def test_a_statement_whose_caller_went_away_leaves_no_connection(file: SqliteFile) -> None:
    before = open_connections()
    statements = SqliteStatements(file)
    release = threading.Event()
    held = asyncio.create_task(asyncio.to_thread(statements._use, lambda _: release.wait(5)))
    await asyncio.sleep(0.05)
    held.cancel()
    statements.close()
    release.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert open_connections() == before


async def test_the_rest_is_opened_once_however_many_ask(file: SqliteFile) -> None:
    opened: list[SqlStores] = []

    def open_stores() -> SqlStores:
        opened.append(open_sql_stores(SqliteDialect(file)))
        return opened[-1]

    later = SqlStoresLater(open_stores)
    programs = Deferred(later, "programs")
    assert not opened
    found = await asyncio.gather(*(programs.get("default", "qa") for _ in range(5)))
    assert found == [None] * 5
    assert len(opened) == 1
    await later.close()


async def test_both_ways_see_the_same_at_once(sqlite_url: str, file: SqliteFile, tmp_path: Path) -> None:
    async with open_database(Settings(database_url=sqlite_url)) as database:
        one = program(description="odd \x00\x1b\ud800")
        await database.programs.add(one)
        assert await database.programs.get("default", one.name) == one
        later = SqlStoresLater(lambda: open_sql_stores(SqliteDialect(file)))
        assert await Deferred(later, "programs").get("default", one.name) == one
        await later.close()


async def test_a_start_that_changes_nothing_needs_no_sqlalchemy(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(answer: str) -> Settings:
        entry: dict[str, Any] = {"name": "qa", "signature": f"q -> {answer}", "executor": "mock"}
        native: dict[str, Any] = {"name": "native", "signature": "q -> a"}
        return Settings(database_url=sqlite_url, programs=(ProgramEntry(**entry), ProgramEntry(**native)))

    @asynccontextmanager
    async def started(answer: str) -> AsyncIterator[ProgramService]:
        async with open_database(settings(answer)) as database:
            programs = ProgramService(database.programs, Compiler(), SystemClock(), Facts())
            no_pool: Any = None
            signatures = PythonSignatures(database.programs, no_pool, SystemClock())
            audit = Audit(database.audit, SystemClock())
            origin = Origin(Path())
            wanted = await check(programs, signatures, settings(answer), "default", origin)
            await declare(programs, wanted, "default", origin, audit)
            yield programs

    async with started("a"), started("b") as programs:
        await programs.rollback(await programs.get("default", "qa"))

    def refuse(_: SqliteFile) -> SqlStores:
        raise AssertionError("SQLAlchemy was asked for")

    monkeypatch.setattr(opening, "_sql_stores", refuse)
    async with started("b") as programs:
        assert (await programs.current(await programs.get("default", "qa"))).number == 1


@pytest.mark.parametrize("index", INDEXES)
def test_a_list_is_read_from_an_index_in_its_order(sqlite_url: str, index: str) -> None:
    newest = [executions.c.created_at.desc(), executions.c.id.desc()]
    query = sa.select(executions.c.id).where(*conditions("default", INDEXES[index])).order_by(*newest)
    asked = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    connection = sqlite3.connect(path_of(sqlite_url))
    (*_, step), *more = connection.execute(f"EXPLAIN QUERY PLAN {asked}").fetchall()
    connection.close()
    assert f"INDEX {index} " in step
    assert more == [], "rows are sorted"


@pytest.mark.parametrize("groups", [COST_GROUPS, ("program", "model"), ("day",), ()])
@pytest.mark.parametrize("since", [None, NOON])
def test_costs_are_added_up_without_reading_the_rows(
    sqlite_url: str, groups: tuple[CostGroup, ...], since: datetime | None
) -> None:
    day = SqliteDialect(SqliteFile(path_of(sqlite_url), "normal")).day(executions.c.created_at)
    query = costs_query(day, "default", groups, ExecutionFilter(since=since))
    asked = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    connection = sqlite3.connect(path_of(sqlite_url))
    (*_, step), *_ = connection.execute(f"EXPLAIN QUERY PLAN {asked}").fetchall()
    connection.close()
    assert "USING COVERING INDEX executions_created " in step


async def test_a_round_that_finds_nothing_to_do_needs_no_sqlalchemy(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(database_url=sqlite_url)
    async with open_database(settings):
        pass

    def loaded(_: SqliteFile) -> Any:
        raise AssertionError("SQLAlchemy was loaded")

    monkeypatch.setattr(opening, "_sql_stores", loaded)
    async with open_database(settings) as database:
        maintenance = Maintenance(
            database.executions,
            database.nodes,
            database.budgets,
            LocalSignals(),
            Retention(days=1, rows=10),
            SystemClock(),
            "n",
            audit=database.audit,
            datasets=database.datasets,
            feedback=database.feedback,
        )
        await maintenance.beat()
        await maintenance.prune()
