"""How the journal is read, and what becomes of those who wait for it when it can't be written."""

import asyncio
import sqlite3
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite

from dspex.kit.errors import Unavailable
from dspex.optimizations.records import Kept
from dspex.storage.dialects import dialect_for
from dspex.storage.sessions import Sessions
from dspex.storage.sqlite.file import path_of
from dspex.storage.stores.journal import StoredJournal, page_query
from tests.making import NOON


@pytest.mark.parametrize("after", [None, ("d", 3)])
def test_each_page_is_read_from_the_key_in_its_order(sqlite_url: str, after: tuple[str, int] | None) -> None:
    query = page_query("p", "o", after, 500)
    asked = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    connection = sqlite3.connect(path_of(sqlite_url))
    (*_, step), *more = connection.execute(f"EXPLAIN QUERY PLAN {asked}").fetchall()
    connection.close()
    place = "" if after is None else " AND (digest,ordinal)>(?,?)"
    assert step.endswith(f"(project=? AND optimization_id=?{place})"), step
    assert more == [], "rows are sorted"


async def test_everybody_who_waits_hears_that_nothing_can_be_written(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(dialect_for(sqlite_url))
    journal = StoredJournal(sessions)
    kept = [Kept("d", number, {}, 0.5, NOON) for number in range(3)]

    def refuse(*_: Any) -> Any:
        raise Unavailable("The database does not answer.", code="database_unavailable")

    with monkeypatch.context() as away:
        away.setattr(sessions.dialect, "batch_writer", refuse)
        async with asyncio.timeout(60):
            told = await asyncio.gather(
                *(journal.keep("p", "o", one) for one in kept), return_exceptions=True
            )
    assert [type(one) for one in told] == [Unavailable] * 3
    # It comes back by itself.
    async with asyncio.timeout(60):
        await asyncio.gather(*(journal.keep("p", "o", one) for one in kept))
    assert list(await journal.page("p", "o", after=None, limit=9)) == kept
    await journal.close()
    await sessions.close()
