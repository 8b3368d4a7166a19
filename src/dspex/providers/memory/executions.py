"""Executions, claims and nodes kept in memory, for tests and throw-away servers."""

import builtins
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec.structs import replace

from dspex.executions.records import (
    COST_GROUPS,
    PAGE_SIZE,
    SORTS,
    CostGroup,
    CostLine,
    Execution,
    ExecutionError,
    ExecutionFilter,
    ExecutionStatistics,
    IdempotencyClaim,
)
from dspex.kit import json
from dspex.kit.errors import Invalid, Problem
from dspex.kit.paging import Page, decode_cursor, encode_cursor, fitting

UNFINISHED = frozenset({"pending", "running"})
_COST_GROUPS: Final[Mapping[CostGroup, Callable[[Execution], str | None]]] = {
    "day": lambda one: one.created_at.astimezone(UTC).date().isoformat(),
    "program": lambda one: one.program,
    "model": lambda one: one.model,
    "key": lambda one: one.key_id,
}


class MemoryNodes:
    """An `executions.ports.Nodes`."""

    def __init__(self) -> None:
        self.beats: dict[str, datetime] = {}

    async def beat(self, node: str, at: datetime) -> None:
        self.beats[node] = at

    async def leave(self, node: str) -> None:
        self.beats[node] = datetime.fromtimestamp(0, UTC)

    async def last_beat(self, node: str) -> datetime | None:
        return self.beats.get(node)

    async def alive(self, *, beat_after: datetime) -> Sequence[str]:
        return sorted(node for node, beat in self.beats.items() if beat > beat_after)

    async def forget(self, *, beat_before: datetime) -> int:
        gone = [node for node, beat in self.beats.items() if beat < beat_before]
        for node in gone:
            del self.beats[node]
        return len(gone)


class MemoryExecutions:
    """An `executions.ports.ExecutionStore` and a `Recorder`. Nothing awaits inside, so all is atomic."""

    def __init__(self, nodes: MemoryNodes) -> None:
        self._nodes = nodes
        self._rows: dict[tuple[str, str], Execution] = {}
        self._claims: dict[tuple[str, str], IdempotencyClaim] = {}
        self._jobs: Mapping[tuple[str, str], object] = {}
        self.has_job: Callable[[str, str], bool] = lambda project, execution_id: False

    def share_claims(
        self, claims: dict[tuple[str, str], IdempotencyClaim], jobs: Mapping[tuple[str, str], object]
    ) -> None:
        """A key that became a job is no execution's, and is kept as long as the job."""
        self._claims, self._jobs = claims, jobs

    def check(self) -> None:
        """Memory is always there."""

    async def record(self, execution: Execution, *, behind: bool = False, certain: bool = False) -> None:
        await self.save([execution])

    async def save(self, executions: Sequence[Execution]) -> None:
        self._rows.update({(one.project, one.id): one for one in executions})

    async def get(self, project: str, execution_id: str) -> Execution | None:
        return self._rows.get((project, execution_id))

    async def list(
        self, project: str, where: ExecutionFilter, *, sort: str, limit: int, cursor: str | None
    ) -> Page[Execution]:
        if sort not in SORTS:
            problem = Problem("/sort", "bad_sort", f"sort must be one of {', '.join(SORTS)}")
            raise Invalid(f"{sort!r} is no sort order.", code="bad_sort", problems=[problem])
        place = _placing(sort.lstrip("-"))
        found = sorted(self.matching(project, where), key=place, reverse=sort.startswith("-"))
        if cursor is not None:
            after = _position(cursor, sort)
            found = [one for one in found if (place(one) < after if sort[0] == "-" else place(one) > after)]
        count = fitting((_size(one) for one in found[:limit]), PAGE_SIZE)
        page = tuple(replace(one, calls=(), steps=()) for one in found[:count])
        more = len(found) > count
        return Page(page, encode_cursor(sort, *place(page[-1])) if more else None)

    async def statistics(
        self,
        project: str,
        program: str,
        *,
        version: int | None,
        since: datetime | None,
        until: datetime | None,
    ) -> ExecutionStatistics:
        found = self.matching(
            project, ExecutionFilter(program=program, version=version, since=since, until=until)
        )
        completed = sum(one.status == "completed" for one in found)
        failed = sum(one.status == "failed" for one in found)
        durations = sorted(one.duration_ms for one in found if one.duration_ms is not None)
        return ExecutionStatistics(
            executions=len(found),
            completed=completed,
            failed=failed,
            success_rate=completed / (completed + failed) if completed + failed else None,
            duration_avg_ms=math.fsum(durations) / len(durations) if durations else None,
            duration_p50_ms=percentile(durations, 0.5),
            duration_p95_ms=percentile(durations, 0.95),
            duration_p99_ms=percentile(durations, 0.99),
            input_tokens=_tokens(found, "input_tokens"),
            output_tokens=_tokens(found, "output_tokens"),
            total_tokens=_tokens(found, "total_tokens"),
            cost_usd=round(math.fsum(one.cost_usd or 0.0 for one in found), 12),
            unpriced=sum(one.cost_usd is None for one in found),
            saved_usd=round(math.fsum(one.saved_usd for one in found), 12),
            cache_hits=sum(one.cache == "hit" for one in found),
            last_executed_at=max((one.created_at for one in found), default=None),
        )

    async def costs(
        self,
        project: str,
        *,
        by: Sequence[CostGroup],
        program: str | None,
        since: datetime | None,
        until: datetime | None,
    ) -> Sequence[CostLine]:
        wanted = [name for name in COST_GROUPS if name in by]
        groups: defaultdict[tuple[str | None, ...], builtins.list[Execution]] = defaultdict(list)
        for one in self.matching(project, ExecutionFilter(program=program, since=since, until=until)):
            groups[tuple(_COST_GROUPS[name](one) for name in wanted)].append(one)
        if not wanted and not groups:
            groups[()] = []
        order = sorted(groups, key=lambda key: [(part is not None, part or "") for part in key])
        if "day" in wanted:
            order.sort(key=lambda key: key[0] or "", reverse=True)
        return [
            CostLine(
                dict(zip(wanted, key, strict=True)),
                executions=len(groups[key]),
                input_tokens=_tokens(groups[key], "input_tokens"),
                output_tokens=_tokens(groups[key], "output_tokens"),
                cost_usd=round(math.fsum(one.cost_usd or 0.0 for one in groups[key]), 12),
                saved_usd=round(math.fsum(one.saved_usd for one in groups[key]), 12),
                unpriced=sum(one.cost_usd is None for one in groups[key]),
            )
            for key in order
        ]

    async def fail_orphans(self, *, beat_before: datetime, at: datetime, reason: str) -> int:
        alive = {node for node, beat in self._nodes.beats.items() if beat >= beat_before}
        error = ExecutionError("unavailable", "node_died", "NodeDied", reason)
        orphans = {
            key: replace(one, status="failed", completed_at=at, error=error)
            for key, one in self._rows.items()
            if one.status in UNFINISHED and one.node not in alive and not self.has_job(*key)
        }
        self._rows.update(orphans)
        return len(orphans)

    async def prune(
        self, project: str | None, *, older_than: datetime | None, keep_newest: int | None
    ) -> int:
        doomed: set[tuple[str, str]] = set()
        for one_project in {key[0] for key in self._rows} if project is None else {project}:
            finished = [one for one in self._rows.values() if one.project == one_project]
            finished = [one for one in finished if one.status not in UNFINISHED]
            finished.sort(key=lambda one: (one.created_at, one.id), reverse=True)
            kept = [one for one in finished if older_than is None or one.created_at >= older_than]
            kept = kept[:keep_newest]
            doomed |= {(one.project, one.id) for one in finished} - {(one.project, one.id) for one in kept}
        self._rows = {key: one for key, one in self._rows.items() if key not in doomed}
        for key, claim in [*self._claims.items()]:
            if (claim.project, claim.execution_id) in doomed:
                del self._claims[key]
        return len(doomed)

    async def prune_claims(self, *, older_than: datetime) -> int:
        pruned = [
            key
            for key, claim in self._claims.items()
            if claim.created_at < older_than
            and (claim.project, claim.execution_id) not in {*self._rows, *self._jobs}
        ]
        for key in pruned:
            del self._claims[key]
        return len(pruned)

    async def claim(self, claim: IdempotencyClaim) -> IdempotencyClaim:
        return self._claims.setdefault((claim.project, claim.key), claim)

    async def take_over(self, claim: IdempotencyClaim, *, from_execution: str) -> bool:
        held = self._claims.get((claim.project, claim.key))
        if held is None or held.execution_id != from_execution:
            return False
        self._claims[claim.project, claim.key] = replace(claim, body_digest=held.body_digest)
        return True

    async def release(self, project: str, key: str, *, execution_id: str) -> None:
        held = self._claims.get((project, key))
        if held is not None and held.execution_id == execution_id:
            del self._claims[project, key]

    def of_node(self, node: str) -> builtins.list[Execution]:
        return [one for one in self._rows.values() if one.node == node]

    def matching(self, project: str, where: ExecutionFilter) -> builtins.list[Execution]:
        wanted = {
            name: value
            for name in ("program", "version", "status", "session_id", "request_id", "key_id")
            if (value := getattr(where, name)) is not None
        }
        return [
            one
            for one in self._rows.values()
            if one.project == project
            and all(getattr(one, name) == value for name, value in wanted.items())
            and (where.since is None or one.created_at >= where.since)
            and (where.until is None or one.created_at < where.until)
        ]


def _size(one: Execution) -> int:
    parts = (one.inputs, one.outputs, one.usage, one.parameters, one.metadata, one.violations)
    return sum(len(json.dumps(part)) for part in parts)


def _placing(name: str) -> Callable[[Execution], tuple[Any, str]]:
    """Unknown durations and costs sort below all others."""

    def place(one: Execution) -> tuple[Any, str]:
        if name == "created_at":
            return one.created_at.astimezone(UTC).isoformat(timespec="microseconds"), one.id
        value = getattr(one, name)
        return -1.0 if value is None else value, one.id

    return place


def _position(cursor: str, sort: str) -> tuple[Any, str]:
    match decode_cursor(cursor, 3):
        case [str() as made_for, str() | int() | float() as value, str() as execution_id] if (
            made_for == sort and isinstance(value, str) == sort.endswith("created_at")
        ):
            return value, execution_id
    raise Invalid(
        "The cursor belongs to another list or sort order; leave it out to start from the first page.",
        code="bad_cursor",
        problems=[Problem("/cursor", "bad_cursor", "not a cursor of this list")],
    )


def percentile(ordered: list[float], fraction: float) -> float | None:
    """Interpolated as SQL's percentile_cont."""
    if not ordered:
        return None
    rank = fraction * (len(ordered) - 1)
    low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    return low + (high - low) * (rank % 1)


def _tokens(found: builtins.list[Execution], name: str) -> int:
    return sum(one.usage.get(name, 0) for one in found)
