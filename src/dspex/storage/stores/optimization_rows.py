"""Optimizations as rows and back."""

from collections.abc import Mapping
from typing import Any

from msgspec import convert
from msgspec.structs import replace

from dspex.jobs.records import Job, JobError
from dspex.kit.records import asdict
from dspex.optimizations.records import Best, Counters, Ended, Optimization, Plan, Standing
from dspex.optimizations.rules import most, without_state


def optimization_row(one: Optimization) -> dict[str, Any]:
    return {
        "project": one.project,
        "id": one.id,
        "program": one.plan.program,
        "optimizer": one.plan.optimizer,
        "identity": one.identity,
        "state": one.state,
        "author": one.author,
        "attempts": one.attempts,
        "created_at": one.created_at,
        "started_at": one.started_at,
        "completed_at": one.completed_at,
        "plan": asdict(one.plan),
        **standing_values(one.standing),
        "result": one.result,
        "error": None if one.error is None else asdict(one.error),
    }


def standing_values(standing: Standing, *, best: bool = True) -> dict[str, Any]:
    """The best program's state apart, which may be long: where only scores are shown it is left out.

    Without `best` it is not written either.
    """
    values: dict[str, Any] = {"standing": asdict(without_state(standing))}
    if best:
        values["best"] = None if standing.best is None else asdict(standing.best)
    return values


def with_counters(stored: Any, counters: Counters) -> dict[str, Any]:
    """A standing on record, with counters that are none lower than these."""
    standing = convert(stored, Standing)
    return asdict(replace(standing, counters=most(standing.counters, counters)))


def values_of_job(job: Job) -> dict[str, Any]:
    """What an optimization has of its job."""
    return {
        "state": job.state,
        "attempts": job.attempts,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
        "result": job.result,
        "error": None if job.error is None else asdict(job.error),
    }


def optimization_of(row: Mapping[Any, Any]) -> Optimization:
    standing, best, error = convert(row["standing"], Standing), row.get("best"), row["error"]
    if best is not None:
        standing = replace(standing, best=Best(**{**best, "demos": tuple(best.get("demos", ()))}))
    return Optimization(
        id=row["id"],
        project=row["project"],
        plan=convert(row["plan"], Plan),
        identity=row["identity"],
        created_at=row["created_at"],
        state=row["state"],
        author=row["author"],
        attempts=row["attempts"],
        standing=standing,
        result=row["result"],
        error=None if error is None else JobError(**error),
        started_at=row["started_at"],
        completed_at=row["completed_at"],
    )


def ended_of(row: Mapping[Any, Any]) -> Ended:
    result = row["result"] or {}
    return Ended(
        project=row["project"],
        id=row["id"],
        optimizer=row["optimizer"],
        state=row["state"],
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        baseline_score=result.get("baseline_score"),
        score=result.get("score"),
    )
