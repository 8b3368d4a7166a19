"""The schema, up and down, with data in it."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from dspex.access.records import AuditEntry, Key
from dspex.configuration.settings import Settings
from dspex.evaluations.records import ExampleResult, Numbers
from dspex.executions.feedback.records import Feedback
from dspex.executions.records import Execution
from dspex.gateway.budgeting import Account, Holding
from dspex.jobs.rules import begun as begin
from dspex.kit.errors import Conflict
from dspex.observability.records import Alert, Part
from dspex.programs.records import CompiledDocument, Deployment
from dspex.storage import migrations
from dspex.storage.dialects import dialect_for
from dspex.storage.migrations import HEAD, REVISIONS, config, current, downgrade, is_current, upgrade
from dspex.storage.opening import open_database
from dspex.storage.sessions import Sessions
from dspex.storage.tables import metadata
from tests.making import NOON, dataset, evaluation, execution, job, program, row, version


def on(url: str, use: Callable[[sa.Connection], Any]) -> Any:
    async def run() -> Any:
        sessions = Sessions(dialect_for(url))
        try:
            async with sessions.writing() as session:
                return await session.run_sync(use)
        finally:
            await sessions.close()

    return asyncio.run(run())


async def fill(url: str) -> None:
    async with open_database(Settings(database_url=url)) as database:
        one = program()
        await database.programs.add(one)
        stored = await database.programs.add_version(version(one, status="ready"))
        await database.programs.deploy(
            one, stored, Deployment("d", "default", one.id, stored.id, "deploy", NOON)
        )
        await database.programs.add_compiled(CompiledDocument("c", "default", {"a": 1}, {}, NOON))
        await database.recorder.record(execution(id="e"))
        await database.nodes.beat("n", NOON)
        account = Account("default", "program", "qa", "total")
        await database.budgets.book(Holding(account, "n", 1, 2), at=NOON, limit=9, wanted=1)
        await database.datasets.stage(examples := dataset())
        await database.datasets.add("default", examples.id, [row(1)])
        await database.datasets.publish([examples])
        judged = Feedback("f", "default", "e", NOON, score=1.0, correction={"answer": "x"})
        assert await database.feedback.add(judged, most=1)
        await database.evaluations.submit(evaluated := job("v"), evaluation(id="v"))
        await database.jobs.change(evaluated, begun := begin(evaluated, "n", NOON))
        assert await database.evaluations.settle(
            begun, [ExampleResult(1, "r", "e", 0.5, cost_usd=0.5, metric_cost_usd=0.25)], {"scored": 1}
        )
        assert await database.keys.add_first(Key("k", "default", "n", "admin", None, "d", NOON, "cli"))
        await database.audit.add(AuditEntry("a", "default", NOON, "cli", "key.create", "n", "done"))
        await database.alerts.add([Part("default", "qa", NOON, 10, 5, 1.0, 0.0)])
        alert = Alert("a", "error_rate", "default", "qa", "n", 0.5, 0.1, "Half failed.", NOON)
        assert await database.alerts.open(alert)


def test_up_down_and_up_with_data(empty_database_url: str) -> None:
    assert current(empty_database_url) is None
    for revision in REVISIONS:
        upgrade(empty_database_url, revision)
        assert current(empty_database_url) == revision
    assert is_current(empty_database_url)
    asyncio.run(fill(empty_database_url))
    for revision in (*reversed(REVISIONS[:-1]), "base"):
        downgrade(empty_database_url, revision)
    assert current(empty_database_url) is None
    assert on(empty_database_url, lambda connection: sa.inspect(connection).get_table_names()) == [
        "alembic_version"
    ]
    upgrade(empty_database_url)
    asyncio.run(fill(empty_database_url))


def test_executions_of_before_there_were_pipelines_have_no_steps(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    asyncio.run(fill(empty_database_url))
    downgrade(empty_database_url, "0001")
    upgrade(empty_database_url)

    async def read() -> Execution | None:
        async with open_database(Settings(database_url=empty_database_url)) as database:
            return await database.executions.get("default", "e")

    kept = asyncio.run(read())
    assert kept is not None
    assert (kept.inputs, kept.steps) == ({"question": "why?"}, ())


def test_what_metrics_cost_before_it_was_counted_apart_is_not_known(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    asyncio.run(fill(empty_database_url))
    downgrade(empty_database_url, "0010")
    upgrade(empty_database_url)

    async def read() -> Sequence[Numbers]:
        async with open_database(Settings(database_url=empty_database_url)) as database:
            return await database.evaluations.numbers("default", "v", after=0, limit=9)

    (kept,) = asyncio.run(read())
    assert (kept.cost_usd, kept.metric_cost_usd) == (0.5, None)


def test_an_older_release_finds_no_jobs_that_it_knows_no_handler_for(empty_database_url: str) -> None:
    def kinds(connection: sa.Connection) -> list[str]:
        return sorted(connection.execute(sa.text("SELECT kind FROM jobs")).scalars())

    async def add() -> None:
        async with open_database(Settings(database_url=empty_database_url)) as database:
            for kind in ("batch", "evaluation", "optimization"):
                await database.jobs.add(job(kind, kind=kind))

    upgrade(empty_database_url)
    asyncio.run(add())
    downgrade(empty_database_url, "0007")
    assert on(empty_database_url, kinds) == ["batch", "evaluation"]
    downgrade(empty_database_url, "0006")
    assert on(empty_database_url, kinds) == ["batch"]


def test_the_migrations_make_the_tables_that_the_code_expects(empty_database_url: str) -> None:
    upgrade(empty_database_url)

    def types_differ(context: MigrationContext, *compared: Any) -> bool:
        _, _, found, expected = compared
        return bool(found.compile(context.dialect) != expected.compile(context.dialect))

    def differences(connection: sa.Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": types_differ})
        return compare_metadata(context, metadata)

    assert on(empty_database_url, differences) == []


def test_the_list_of_revisions_is_complete(empty_database_url: str) -> None:
    def walk(connection: sa.Connection) -> list[str]:
        return [
            script.revision for script in ScriptDirectory.from_config(config(connection)).walk_revisions()
        ]

    assert on(empty_database_url, walk) == list(reversed(REVISIONS))


def test_a_newer_database_is_refused(database_url: str) -> None:
    def set_revision(revision: str) -> None:
        statement = sa.text("UPDATE alembic_version SET version_num = :revision")
        on(database_url, lambda connection: connection.execute(statement, {"revision": revision}))

    set_revision("9999")
    try:
        for move in (upgrade, lambda url: downgrade(url, "base"), lambda url: asyncio.run(fill(url))):
            with pytest.raises(Conflict, match="9999") as refused:
                move(database_url)
            assert refused.value.code == "database_newer"
    finally:
        set_revision(HEAD)


def test_an_unknown_revision_is_refused(database_url: str) -> None:
    with pytest.raises(Conflict) as refused:
        downgrade(database_url, "no_such")
    assert refused.value.code == "bad_revision"
    assert is_current(database_url)


def test_going_up_to_what_lies_behind_is_refused(database_url: str) -> None:
    with pytest.raises(Conflict, match="say --down"):
        upgrade(database_url, REVISIONS[0])
    assert is_current(database_url)


def test_many_processes_may_start_at_once(empty_database_url: str) -> None:
    command = [
        sys.executable,
        "-c",
        "import asyncio, sys; from dspex.configuration.settings import Settings\n"
        "from dspex.storage.opening import open_database\n"
        "async def main():\n"
        "    async with open_database(Settings(database_url=sys.argv[1])) as database:\n"
        "        await database.ping()\n"
        "asyncio.run(main())",
        empty_database_url,
    ]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert is_current(empty_database_url)


def test_a_failed_migration_leaves_nothing_behind(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("half way")

    monkeypatch.setattr(migrations, "_check_known", lambda stored: stored)
    monkeypatch.setattr("alembic.operations.Operations.create_index", fail)
    with pytest.raises(RuntimeError, match="half way"):
        upgrade(empty_database_url)
    monkeypatch.undo()
    assert on(empty_database_url, lambda connection: sa.inspect(connection).get_table_names()) == []
    upgrade(empty_database_url)


def test_a_start_with_nothing_to_do_loads_no_alembic(sqlite_url: str) -> None:
    script = (
        "import asyncio, sys; from dspex.configuration.settings import Settings\n"
        "from dspex.storage.opening import open_database\n"
        "async def main():\n"
        "    async with open_database(Settings(database_url=sys.argv[1])) as database:\n"
        "        await database.ping()\n"
        "asyncio.run(main())\n"
        "print([name for name in ('alembic', 'asyncpg', 'mako') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, sqlite_url], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
