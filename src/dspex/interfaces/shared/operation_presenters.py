"""How the records of operations look to whoever looks after a node."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, cast

from dspex.access.records import AuditEntry, Key
from dspex.access.rules import rights
from dspex.executions.ports import PoolView
from dspex.executions.records import (
    Activity,
    Bucket,
    CostLine,
    Distribution,
)
from dspex.gateway.answers import CacheStatistics
from dspex.gateway.breakers import Breakers
from dspex.gateway.budgeting import Balance, dollars
from dspex.gateway.steps.lanes import Lanes
from dspex.jobs.records import JobState
from dspex.kit.records import asdict
from dspex.observability.records import Alert

if TYPE_CHECKING:
    # Making so many types takes a node 15 ms of its start.
    from dspex.interfaces.shared import operations


def costs(lines: Iterable[CostLine]) -> "operations.Costs":
    """The lines and their sum."""
    listed = list(lines)
    return {
        "data": [_cost_line(line) for line in listed],
        "next_cursor": None,
        "total": {
            "executions": sum(line.executions for line in listed),
            "input_tokens": sum(line.input_tokens for line in listed),
            "output_tokens": sum(line.output_tokens for line in listed),
            "cost_usd": round(sum(line.cost_usd for line in listed), 12),
            "saved_usd": round(sum(line.saved_usd for line in listed), 12),
            "unpriced": sum(line.unpriced for line in listed),
        },
    }


def _cost_line(line: CostLine) -> "operations.CostLine":
    numbers = asdict(line)
    group = numbers.pop("group")
    return cast("operations.CostLine", {**group, **numbers})


def budget(balance: Balance) -> "operations.Budget":
    account = balance.account
    return {
        "scope": account.scope,
        "name": account.name,
        "period": account.period,
        "limit_usd": dollars(balance.limit),
        "spent_usd": dollars(balance.spent),
        "reserved_usd": dollars(balance.held),
        "left_usd": dollars(max(balance.limit - balance.spent - balance.held, 0)),
        "updated_at": balance.updated_at,
    }


def analytics(
    metric: str,
    program: str | None,
    since: datetime,
    until: datetime,
    whole: Distribution,
    buckets: Iterable[Bucket],
) -> "operations.Analytics":
    return {
        "metric": metric,
        "program": program,
        "since": since,
        "until": until,
        **asdict(whole),  # type: ignore[typeddict-item]
        "buckets": [{"start": one.start, **asdict(one.distribution)} for one in buckets],
    }


def activity(record: Activity, optimizations: Mapping[JobState, int]) -> "operations.Activity":
    completed, failed = optimizations.get("completed", 0), optimizations.get("failed", 0)
    return {
        "executions": record.executions,
        "completed": record.completed,
        "failed": record.failed,
        "error_rate": record.error_rate,
        "cache_hits": record.cache_hits,
        "cache_misses": record.cache_misses,
        "hit_rate": record.hit_rate,
        "active_sessions": record.sessions,
        "duration_p95_ms": record.duration_p95_ms,
        "cost_usd": record.cost_usd,
        "saved_usd": record.saved_usd,
        "optimizations": {
            "completed": completed,
            "failed": failed,
            "cancelled": optimizations.get("cancelled", 0),
            "success_rate": completed / (completed + failed) if completed + failed else None,
        },
    }


def alert(record: Alert) -> "operations.Alert":
    return {
        "id": record.id,
        "rule": record.rule,
        "state": "active" if record.resolved_at is None else "resolved",
        "program": record.program,
        "node": record.node,
        "value": record.value,
        "threshold": record.threshold,
        "message": record.message,
        "raised_at": record.raised_at,
        "resolved_at": record.resolved_at,
    }


def key(record: Key, now: datetime) -> "operations.Key":
    if record.revoked_at is not None:
        status = "revoked"
    else:
        status = "expired" if record.expires_at is not None and record.expires_at <= now else "active"
    return {
        "id": record.id,
        "project": record.project,
        "name": record.name,
        "role": record.role,
        "scopes": sorted(rights(record.role, record.scopes)),
        "narrowed": record.scopes is not None,
        "status": status,  # type: ignore[typeddict-item]
        "created_at": record.created_at,
        "created_by": record.created_by,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
        "rotated_at": record.rotated_at,
        "previous_until": record.previous_until,
        "last_used_at": record.last_used_at,
        "rate_limit": None if record.rate_limit is None else asdict(record.rate_limit),  # type: ignore[typeddict-item]
        "budget": None if record.budget is None else asdict(record.budget),  # type: ignore[typeddict-item]
    }


def made_key(record: Key, text: str, now: datetime) -> "operations.MadeKey":
    return {**key(record, now), "key": text}


def audit_line(entry: AuditEntry) -> "operations.AuditLine":
    return {
        "id": entry.id,
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "outcome": entry.outcome,
        "request_id": entry.request_id,
        "details": entry.details,
    }


def breaker(model: str, breakers: Breakers, lanes: Lanes | None) -> "operations.Breaker":
    """Without `lanes` for whoever may not see them."""
    known = breakers.of(model)
    shown: operations.Breaker = {
        "model": model,
        "state": breakers.state(model),
        "failures": known.failures,
        "successes": known.successes,
        "since": known.since,
        "retry_after": breakers.retry_after(model),
        "last_error": known.last_error,
    }
    if lanes is not None:
        shown["lanes"] = {
            lane: {"in_flight": one.in_flight, "waiting": one.waiting}
            for lane, one in lanes.occupancy(model).items()
        }
    return shown


def cache_statistics(kinds: Iterable[CacheStatistics]) -> "operations.CacheStatistics":
    listed = list(kinds)
    states = {one.size.redis for one in listed}
    return {
        "redis": next((state for state in ("away", "ok") if state in states), "off"),
        "data": [
            {
                "kind": one.kind,
                "entries": one.size.entries,
                "bytes": one.size.size_bytes,
                "hits": one.hits,
                "misses": one.misses,
                "stale": one.stale,
                "hit_rate": round(one.hits / looked, 4) if (looked := one.hits + one.misses) else None,
            }
            for one in listed
        ],
        "next_cursor": None,
    }


def pool(view: PoolView) -> "operations.Pool":
    return cast("operations.Pool", asdict(view))
