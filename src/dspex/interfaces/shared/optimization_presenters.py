"""How optimizations look to a caller: the same documents over HTTP and on the command line."""

from typing import TYPE_CHECKING, Any

from dspex.kit.records import asdict
from dspex.optimizations.records import Event, Optimization
from dspex.optimizations.rules import money_of
from dspex.optimizations.service import Estimate
from dspex.programs.records import Version

if TYPE_CHECKING:
    from dspex.interfaces.shared import optimization_documents as shown


def optimization(record: Optimization) -> "shown.Optimization":
    plan, standing, result = record.plan, record.standing, record.result or {}
    best = standing.best
    return {
        "id": record.id,
        "status": record.state,
        "program": plan.program,
        "version": plan.version,
        "optimizer": plan.optimizer,
        "config": plan.config,
        "metric": plan.metric,
        "dataset": plan.dataset.to_json(),
        "validation": None if plan.validation is None else plan.validation.to_json(),
        "validation_share": plan.validation_share,
        "train_rows": plan.train_rows,
        "validation_rows": plan.validation_rows,
        "seed": plan.seed,
        "threads": plan.threads,
        "use_cache": plan.use_cache,
        "deploy": plan.deploy,
        "phase": standing.phase,
        "iteration": standing.iteration,
        "candidates": standing.candidates,
        "candidates_of": standing.of,
        "baseline_score": result.get("baseline_score", standing.baseline_score),
        "best": (
            None
            if best is None
            else {"score": best.score, "number": best.number, "full": best.full, "held_out": best.ours}
        ),
        "score": result.get("score", None if best is None else best.held_out_score),
        "result_version": result.get("version"),
        **money_of(standing.counters, plan.budget_usd),  # type: ignore[typeddict-item]
        "running_s": standing.counters.running_s,
        "attempts": record.attempts,
        "key_id": record.author,
        "error": None if record.error is None else asdict(record.error),
        "created_at": record.created_at,
        "started_at": record.started_at,
        "completed_at": record.completed_at,
    }


def whole_optimization(record: Optimization) -> "shown.WholeOptimization":
    return {
        **optimization(record),
        "curve": list(record.standing.curve),
        "result": record.result,
    }


def estimate(found: Estimate) -> "shown.Estimate":
    plan = found.plan
    return {
        "program": plan.program,
        "version": plan.version,
        "optimizer": plan.optimizer,
        "config": plan.config,
        "train_rows": plan.train_rows,
        "validation_rows": plan.validation_rows,
        "predictors": list(plan.predictors),
        "calls": None if found.calls is None else asdict(found.calls),  # type: ignore[typeddict-item]
        "usd": None if found.usd is None else asdict(found.usd),  # type: ignore[typeddict-item]
        "basis": found.basis,  # type: ignore[typeddict-item]
        "reason": found.reason,
    }


def kept(program: str, version: Version) -> "shown.KeptVersion":
    return {"program": program, "version": version.number, "status": version.status}


def event(record: Event) -> dict[str, Any]:
    return {**record.body, "at": record.at}
