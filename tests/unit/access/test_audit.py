"""The audit log: written before, concluded after, and not to be flooded."""

from typing import Any

import pytest

from dspex.access.audit import KEPT, REFUSALS_A_MINUTE, Audit
from dspex.access.records import AuditEntry, AuditFilter, Author
from dspex.kit.errors import Conflict, Forbidden, Unavailable
from dspex.kit.paging import Page
from dspex.providers.memory.access import MemoryAudit
from tests.clock import FakeClock
from tests.interfaces.stores import Behind, Switch

ME = Author("default", "me", "request-1")


class Written:
    def __init__(self) -> None:
        self.clock, self.switch = FakeClock(), Switch()
        store: Any = Behind(self.switch, MemoryAudit())
        self.audit = Audit(store, self.clock)

    async def lines(self) -> list[AuditEntry]:
        page: Page[AuditEntry] = await self.audit.list("default", AuditFilter(), limit=200, cursor=None)
        return list(page.data)


async def test_an_operation_is_written_before_and_concluded_after() -> None:
    written = Written()
    async with written.audit.operation(ME, "key.create", "name", role="caller") as told:
        (during,) = await written.lines()
        assert (during.outcome, during.actor, during.request_id) == ("started", "me", "request-1")
        told["id"] = "abc"
    (after,) = await written.lines()
    assert (after.outcome, after.target, after.details) == ("done", "name", {"role": "caller", "id": "abc"})


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (Conflict("no", code="key_changed"), "failed", "key_changed"),
        (Forbidden("no", code="grant_too_wide"), "refused", "grant_too_wide"),
        (ZeroDivisionError("hush"), "failed", "ZeroDivisionError"),
    ],
)
async def test_how_it_failed_is_told_without_what_was_said(error: Exception, outcome: str, code: str) -> None:
    written = Written()
    with pytest.raises(type(error)):
        async with written.audit.operation(ME, "key.create"):
            raise error
    (line,) = await written.lines()
    assert (line.outcome, line.details) == (outcome, {"code": code})


async def test_nothing_is_done_that_could_not_be_written_down() -> None:
    written = Written()
    written.switch.away = True
    with pytest.raises(Unavailable):
        async with written.audit.operation(ME, "key.revoke"):
            pytest.fail("it was done")


async def test_a_breaker_can_be_opened_while_the_database_is_away() -> None:
    written, done = Written(), False
    written.switch.away = True
    async with written.audit.operation(ME, "breaker.open", "main"):
        done = True
    assert done
    written.switch.away = False
    async with written.audit.operation(ME, "breaker.close", "main"):
        assert await written.lines() == []
    assert [line.action for line in await written.lines()] == ["breaker.close"]


async def test_what_was_done_stays_done_when_its_end_can_not_be_written() -> None:
    written = Written()
    async with written.audit.operation(ME, "key.revoke"):
        written.switch.away = True
    written.switch.away = False
    (line,) = await written.lines()
    assert line.outcome == "started"


async def test_refusals_are_listed_up_to_a_number_a_minute_and_then_counted() -> None:
    written = Written()
    for _ in range(1000):
        written.audit.refused(ME, "authenticate", None, "key_invalid")
    written.audit.refused(ME, "authenticate", None, "unauthenticated")
    assert len(await written.lines()) == REFUSALS_A_MINUTE + 1
    written.clock.advance(60)
    written.audit.refused(ME, "authenticate", None, "key_invalid")
    lines = await written.lines()
    assert len(lines) == REFUSALS_A_MINUTE + 3
    assert [one.details["count"] for one in lines if "count" in one.details] == [1000 - REFUSALS_A_MINUTE]


async def test_refusals_wait_for_the_database_without_filling_memory() -> None:
    written = Written()
    written.switch.away = True
    for _ in range(3 * KEPT):
        written.audit.refused(ME, "authenticate", None, "key_invalid")
        written.clock.advance(10)
    with pytest.raises(Unavailable):
        await written.audit.flush()
    await written.audit.close()
    assert len(written.audit._refused) <= KEPT
    written.switch.away = False
    await written.audit.flush()
    page = await written.audit.list("default", AuditFilter(), limit=200, cursor=None)
    assert len(page.data) == 200 and page.next_cursor is not None


async def test_closing_writes_the_counts_too() -> None:
    written = Written()
    for _ in range(REFUSALS_A_MINUTE + 5):
        written.audit.refused(ME, "authenticate", None, "key_invalid")
    await written.audit.close()
    lines = await written.lines()
    assert len(lines) == REFUSALS_A_MINUTE + 1 and lines[0].details == {"code": "key_invalid", "count": 5}
