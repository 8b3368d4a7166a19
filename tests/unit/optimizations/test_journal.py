"""What an attempt makes of the journal of those before it, also while the database is away."""

import asyncio
from typing import Any

import pytest

from dspex.kit.clock import SystemClock
from dspex.kit.errors import Unavailable
from dspex.optimizations import journal as journals
from dspex.optimizations.journal import Replay
from dspex.optimizations.records import Kept
from dspex.providers.memory.optimizations import MemoryJournal
from tests.making import NOON


class Away(MemoryJournal):
    """Fails so often before it works again."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.failures = failures
        self.found = 0

    async def keep(self, project: str, optimization_id: str, kept: Kept) -> None:
        self._fail()
        await super().keep(project, optimization_id, kept)

    async def find(self, project: str, optimization_id: str, digest: str, ordinal: int) -> Kept | None:
        self._fail()
        self.found += 1
        return await super().find(project, optimization_id, digest, ordinal)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("The database does not answer.", code="database_unavailable")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "AGAIN_S", 0.001)


async def opened(journal: MemoryJournal, **more: Any) -> Replay:
    return await Replay.opened(journal, "p", "o", SystemClock(), **{"reuse": True, **more})


async def test_an_answer_is_kept_however_long_the_database_is_away() -> None:
    journal = Away(failures=20)
    replay = await opened(journal)
    place = replay.place("d")
    assert await replay.find(place) is None
    kept = await replay.keep(place, {"text": "x"}, 0.5)
    assert list(journal.kept["p", "o"].values()) == [kept]
    assert not replay.is_of_before(place)
    again = await opened(journal)
    assert again.is_of_before(again.place("d"))
    assert await again.find(("d", 0)) == kept


@pytest.mark.parametrize(("reuse", "places"), [(True, [0, 0, 0]), (False, [0, 1, 2])])
async def test_the_same_question_is_one_place_or_several(reuse: bool, places: list[int]) -> None:
    replay = await opened(MemoryJournal(), reuse=reuse)
    assert [replay.place("d")[1] for _ in range(3)] == places


async def test_what_does_not_fit_into_memory_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "RECENT_BYTES", 300)
    monkeypatch.setattr(journals, "READ_AHEAD_BYTES", 200)
    monkeypatch.setattr(journals, "PAGE", 2)
    journal = Away()
    for number in range(10):
        await journal.keep("p", "o", Kept(f"d{number}", 0, {"text": "x" * 90}, 0.0, NOON))
    replay = await opened(journal)
    answers = await asyncio.gather(*(replay.find(replay.place(f"d{number}")) for number in range(10)))
    assert [one.digest for one in answers if one is not None] == [f"d{number}" for number in range(10)]
    assert 5 <= journal.found < 10
