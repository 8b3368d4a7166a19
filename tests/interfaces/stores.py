"""Stores in memory for a node under test; they can be told to be away."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from dspex.executions.records import (
    CostLine,
    Execution,
    ExecutionFilter,
    ExecutionStatistics,
    IdempotencyClaim,
)
from dspex.kit.errors import Conflict, Missing, Unavailable
from dspex.kit.paging import Page, decode_cursor, encode_cursor
from dspex.programs.records import CompiledDocument, Deployment, Program, Version


def paged(rows: list[Any], key: Any, limit: int, cursor: str | None) -> Page[Any]:
    """Rows are sorted already; the cursor is the key of the last one shown."""
    if cursor is not None:
        (last,) = decode_cursor(cursor, 1)
        keys = [key(row) for row in rows]
        rows = rows[keys.index(last) + 1 :] if last in keys else []
    more = len(rows) > limit
    shown = rows[:limit]
    return Page(tuple(shown), encode_cursor(key(shown[-1])) if more else None)


@dataclass
class Switch:
    """`away` makes every store of a node fail as if its database were down."""

    away: bool = False

    def check(self) -> None:
        if self.away:
            raise Unavailable("The database does not answer.", code="database_unavailable", retry_after=1)


@dataclass
class Programs:
    switch: Switch
    programs: dict[str, Program] = field(default_factory=dict)
    stored: dict[str, Version] = field(default_factory=dict)
    history: list[Deployment] = field(default_factory=list)
    documents: dict[str, CompiledDocument] = field(default_factory=dict)

    async def get(self, project: str, name: str) -> Program | None:
        self.switch.check()
        return self.programs.get(name)

    async def list(
        self, project: str, *, include_archived: bool, limit: int, cursor: str | None
    ) -> Page[Program]:
        self.switch.check()
        rows = sorted(self.programs.values(), key=lambda one: one.name)
        shown = [one for one in rows if include_archived or one.archived_at is None]
        return paged(shown, lambda one: one.name, limit, cursor)

    async def version(self, project: str, version_id: str) -> Version | None:
        self.switch.check()
        return self.stored.get(version_id)

    def _of(self, program_id: str) -> "list[Version]":
        return [one for one in self.stored.values() if one.program_id == program_id]

    async def version_by_number(self, project: str, program_id: str, number: int) -> Version | None:
        return next((one for one in self._of(program_id) if one.number == number), None)

    async def version_by_digest(self, project: str, program_id: str, digest: str) -> Version | None:
        return next((one for one in self._of(program_id) if one.digest == digest), None)

    async def versions(
        self, project: str, program_id: str, *, limit: int, cursor: str | None
    ) -> Page[Version]:
        rows = sorted(self._of(program_id), key=lambda one: -one.number)
        return paged(rows, lambda one: one.number, limit, cursor)

    async def version_statuses(self, project: str, program_ids: Sequence[str]) -> dict[str, set[str]]:
        return {one: {str(version.status) for version in self._of(one)} for one in program_ids}

    async def deployments(self, project: str, program_id: str, *, limit: int) -> "list[Deployment]":
        return [one for one in reversed(self.history) if one.program_id == program_id][:limit]

    async def compiled(self, project: str, digest: str) -> CompiledDocument | None:
        self.switch.check()
        return self.documents.get(digest)

    async def add(self, program: Program) -> None:
        self.switch.check()
        if program.name in self.programs:
            raise Conflict(f"There is a program {program.name!r} already.", code="program_exists")
        self.programs[program.name] = program

    async def update(self, program: Program) -> None:
        if program.name not in self.programs:
            raise Missing("gone", code="program_missing")
        self.programs[program.name] = program

    async def add_version(self, version: Version) -> Version:
        version = replace(version, number=len(self._of(version.program_id)) + 1)
        self.stored[version.id] = version
        return version

    async def update_version(self, version: Version, *, expected_status: str) -> None:
        if self.stored[version.id].status != expected_status:
            raise Conflict("changed meanwhile", code="version_changed")
        self.stored[version.id] = version

    async def deploy(self, program: Program, version: Version, deployment: Deployment) -> None:
        for other in self._of(program.id):
            if other.status == "deployed":
                self.stored[other.id] = replace(other, status="ready")
        self.stored[version.id] = replace(self.stored[version.id], status="deployed")
        self.programs[program.name] = replace(program, deployed_version_id=version.id)
        self.history.append(deployment)

    async def add_compiled(self, compiled: CompiledDocument) -> None:
        self.documents.setdefault(compiled.digest, compiled)


def _fits(one: Execution, where: ExecutionFilter) -> bool:
    same = ("program", "version", "status", "session_id", "request_id")
    wanted = {name: getattr(where, name) for name in same if getattr(where, name) is not None}
    return (
        all(getattr(one, name) == value for name, value in wanted.items())
        and (where.since is None or one.created_at >= where.since)
        and (where.until is None or one.created_at < where.until)
    )


@dataclass
class Executions:
    switch: Switch
    rows: dict[str, Execution] = field(default_factory=dict)
    claims: dict[str, IdempotencyClaim] = field(default_factory=dict)

    async def record(self, execution: Execution) -> None:
        await self.save([execution])

    async def save(self, executions: Sequence[Execution]) -> None:
        self.switch.check()
        self.rows.update({one.id: one for one in executions})

    async def get(self, project: str, execution_id: str) -> Execution | None:
        self.switch.check()
        return self.rows.get(execution_id)

    async def list(
        self, project: str, where: ExecutionFilter, *, sort: str, limit: int, cursor: str | None
    ) -> Page[Execution]:
        self.switch.check()
        name = sort.removeprefix("-")
        rows = sorted(
            (one for one in self.rows.values() if _fits(one, where)),
            key=lambda one: (getattr(one, name) is not None, getattr(one, name), one.id),
            reverse=sort.startswith("-"),
        )
        return paged(rows, lambda one: one.id, limit, cursor)

    async def statistics(
        self,
        project: str,
        program: str,
        *,
        version: int | None,
        since: datetime | None,
        until: datetime | None,
    ) -> ExecutionStatistics:
        where = ExecutionFilter(program=program, version=version, since=since, until=until)
        rows = [one for one in self.rows.values() if _fits(one, where)]
        done = sum(one.status == "completed" for one in rows)
        last = max((one.created_at for one in rows), default=None)
        return ExecutionStatistics(
            len(rows), done, len(rows) - done, done / len(rows) if rows else None,
            None, None, None, None, 0, 0, 0, 0.0, 0, 0.0, 0, last,
        )  # fmt: skip

    async def costs(
        self, project: str, *, program: str | None, since: datetime | None, until: datetime | None
    ) -> Sequence[CostLine]:
        rows = [one for one in self.rows.values() if program in (None, one.program)]
        return [CostLine("2026-01-31", "qa", "main", len(rows), 1, 2, 0.25, 0.0, 0)] if rows else []

    async def fail_orphans(self, *, beat_before: datetime, at: datetime, reason: str) -> int:
        return 0

    async def prune(
        self, project: str | None, *, older_than: datetime | None, keep_newest: int | None
    ) -> int:
        return 0

    async def claim(self, claim: IdempotencyClaim) -> IdempotencyClaim:
        self.switch.check()
        return self.claims.setdefault(claim.key, claim)

    async def take_over(self, claim: IdempotencyClaim, *, from_node: str) -> bool:
        if self.claims[claim.key].node != from_node:
            return False
        self.claims[claim.key] = claim
        return True

    async def release(self, project: str, key: str, *, execution_id: str) -> None:
        self.switch.check()
        if key in self.claims and self.claims[key].execution_id == execution_id:
            del self.claims[key]


@dataclass
class Nodes:
    switch: Switch
    beats: dict[str, datetime] = field(default_factory=dict)

    async def beat(self, node: str, at: datetime) -> None:
        self.beats[node] = at

    async def leave(self, node: str) -> None:
        self.beats[node] = datetime.fromtimestamp(0, UTC)

    async def last_beat(self, node: str) -> datetime | None:
        self.switch.check()
        return self.beats.get(node)
