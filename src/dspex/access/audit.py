"""The audit log: who did what sensitive thing, when, and how it ended."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from dspex.access.ports import AuditStore
from dspex.access.records import AuditEntry, AuditFilter, Author, Outcome
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError
from dspex.kit.ids import new_id
from dspex.kit.paging import Page

log = structlog.get_logger(__name__)
# What an operator must be able to do while the database is away; everything else is refused then.
EVEN_UNWRITTEN = frozenset(
    {"config.read", "config.reload", "cache.clear", "breaker.open", "breaker.close", "breaker.reset"}
)
REFUSALS_A_MINUTE = 20
KEPT = 1000
_REFUSED = frozenset({"forbidden", "unauthenticated"})


class _Minute(Struct):
    """Refusals for one reason: how many were listed in this minute, how many only counted."""

    number: int
    listed: int = 0
    more: int = 0
    last: AuditEntry | None = None


class Audit:
    def __init__(self, store: AuditStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._minutes: dict[str, _Minute] = {}
        self._refused: list[AuditEntry] = []

    @asynccontextmanager
    async def operation(
        self, author: Author, action: str, target: str | None = None, **details: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Around an operation; what comes to light meanwhile may be added to the details it yields.

        The entry is committed before the operation begins, and concluded after it: Unavailable is raised, and
        nothing done, when that is impossible. What is in EVEN_UNWRITTEN is done all the same, and its entry
        then is in the log only.
        """
        entry = self._entry(author, action, target, "started", details)
        first = action not in EVEN_UNWRITTEN
        if first:
            await self._store.add(entry)
        outcome: Outcome = "failed"
        try:
            yield details
            outcome = "done"
        except DspexError as error:
            details["code"] = error.code
            if error.kind in _REFUSED:
                outcome = "refused"
            raise
        except BaseException as error:
            details["code"] = type(error).__name__
            raise
        finally:
            await self._conclude(replace(entry, outcome=outcome), is_there=first)

    def refused(self, author: Author, action: str, target: str | None, code: str, **details: Any) -> None:
        """Notes a refused request, to be written by `flush`.

        At most REFUSALS_A_MINUTE a minute are listed for each code; of the rest the last, with the count.
        """
        entry = self._entry(author, action, target, "refused", {**details, "code": code})
        number = int(self._clock.monotonic() // 60)
        minute = self._minutes.get(code)
        if minute is None or minute.number != number:
            self._sum_up(minute)
            minute = self._minutes[code] = _Minute(number)
        if minute.listed < REFUSALS_A_MINUTE:
            minute.listed += 1
            self._queue(entry)
        else:
            minute.more += 1
            minute.last = entry

    async def flush(self) -> None:
        """Writes what was refused. Raises Unavailable; it is kept for the next time then."""
        number = int(self._clock.monotonic() // 60)
        for code, minute in list(self._minutes.items()):
            if minute.number != number:
                self._sum_up(minute)
                del self._minutes[code]
        # Taken out first: of two that flush at once, each writes its own.
        entries, self._refused = self._refused, []
        try:
            if entries:
                await self._store.add(*entries)
        except DspexError:
            self._refused = [*entries, *self._refused][-KEPT:]
            raise

    async def close(self) -> None:
        """Writes what was refused, counts included, as far as that is possible."""
        for minute in self._minutes.values():
            self._sum_up(minute)
        self._minutes.clear()
        try:
            await self.flush()
        except DspexError as error:
            log.warning("audit_not_written", entries=len(self._refused), reason=error.message)

    async def list(
        self, project: str, where: AuditFilter, *, limit: int, cursor: str | None
    ) -> Page[AuditEntry]:
        """Newest first."""
        await self.flush()
        return await self._store.list(project, where, limit=limit, cursor=cursor)

    def _sum_up(self, minute: _Minute | None) -> None:
        if minute is not None and minute.last is not None:
            self._queue(replace(minute.last, details={**minute.last.details, "count": minute.more}))

    def _queue(self, entry: AuditEntry) -> None:
        # While the database is away they pile up: the newest are kept.
        self._refused = [*self._refused[1 - KEPT :], entry]

    async def _conclude(self, entry: AuditEntry, *, is_there: bool) -> None:
        try:
            await (self._store.conclude(entry) if is_there else self._store.add(entry))
        except DspexError as error:
            log.warning(
                "audit_not_written",
                actor=entry.actor,
                action=entry.action,
                target=entry.target,
                outcome=entry.outcome,
                reason=error.message,
            )

    def _entry(
        self, author: Author, action: str, target: str | None, outcome: Outcome, details: dict[str, Any]
    ) -> AuditEntry:
        return AuditEntry(
            new_id(),
            author.project,
            self._clock.now(),
            author.actor,
            action,
            target,
            outcome,
            author.request_id,
            details,
        )
