"""What an optimization comes to: a version with its lineage, deployed where that was asked for."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from dspex.access.audit import Audit
from dspex.access.records import LOCAL, Author, Principal
from dspex.access.rules import check_may
from dspex.jobs.records import Job
from dspex.kit.errors import Conflict, Forbidden
from dspex.optimizations.errors import nothing_kept, unfinished
from dspex.optimizations.learned import line_of
from dspex.optimizations.provenance import traced
from dspex.optimizations.records import Optimization, Optimized, Standing
from dspex.optimizations.rules import cost_per_point, improves, lineage_of, money_of
from dspex.programs.records import Version
from dspex.programs.service import ProgramService

MOST_DEMOS = 1000


class Ending(Struct, frozen=True):
    """`stopped` says what ended the optimizer before its end: "budget". `cost_usd_per_call` was seen while scoring."""

    optimized: Optimized
    stopped: str | None = None
    cost_usd_per_call: float | None = None


class Results:
    def __init__(self, programs: ProgramService, audit: Audit) -> None:
        self._programs = programs
        self._audit = audit

    async def conclude(
        self, optimization: Optimization, standing: Standing, ending: Ending
    ) -> tuple[dict[str, Any], Version | None]:
        """The result, with a version where the score is no worse than the baseline's for all that is known, and that

        version where it is to be deployed. Raises DspexError.
        """
        plan, optimized = optimization.plan, ending.optimized
        # The score of a tuned model is not that of a version with the model as it was.
        tuned = bool(optimized.details.get("fine_tuned"))
        unreliable = optimized.details.get("unreliable")
        better = improves(optimized.score, optimized.baseline_score) if unreliable is None else False
        money = money_of(standing.counters, plan.budget_usd)
        version = (
            await self._version(optimization, standing, ending) if better is not False and not tuned else None
        )
        same = version is not None and version.id == plan.version_id
        result: dict[str, Any] = {
            "baseline_score": optimized.baseline_score,
            "score": optimized.score,
            "scored_on": optimized.scored_on,
            "improved": False if same else better,
            "version": None if version is None or same else version.number,
            "digest": None if version is None or same else version.digest,
            "stopped": ending.stopped,
            **money,
            "cost_usd_per_point": cost_per_point(
                standing.counters.spent_usd, optimized.score, optimized.baseline_score
            ),
            "cost_usd_per_call": ending.cost_usd_per_call,
            "demos": list(optimized.demos)[:MOST_DEMOS],
            "details": optimized.details,
            "attempts": optimization.attempts,
            "deployed": False,
            "not_deployed": None,
        }
        if plan.deploy:
            if tuned:
                result["not_deployed"] = (
                    "A fine-tuned model is part of the result: add it to models.registry, and name it in the program."
                )
            elif unreliable is not None:
                result["not_deployed"] = f"Too little is known of the result: {unreliable}"
            elif version is None or same:
                result["not_deployed"] = "The result is no better than what is deployed."
            elif optimized.score is None:
                result["not_deployed"] = (
                    "The result was not scored on what was held out; evaluate the version, and deploy it by that."
                )
            else:
                return result, version
        return result, None

    async def keep(self, optimization: Optimization) -> Version:
        """A version of the best that was found, however the optimization ended.

        Raises Conflict: nothing_found, or optimization_unfinished while it goes on by itself, since the lineage of a
        version stays as it was made.
        """
        result, best = optimization.result, optimization.standing.best
        if result is not None and result.get("version") is not None:
            program = await self._programs.get(optimization.project, optimization.plan.program)
            return await self._programs.version_numbered(program, result["version"])
        if best is None:
            raise nothing_kept(optimization.id)
        if optimization.state in ("queued", "running"):
            raise unfinished(optimization.id)
        optimized = Optimized(
            best.state,
            optimization.standing.baseline_score,
            best.held_out_score,
            "validation",
            best.demos,
            details={"candidate": best.number},
        )
        return await self._version(optimization, optimization.standing, Ending(optimized, optimization.state))

    async def _version(self, optimization: Optimization, standing: Standing, ending: Ending) -> Version:
        plan, optimized = optimization.plan, ending.optimized
        program = await self._programs.get(optimization.project, plan.program)
        parent = await self._programs.version(optimization.project, plan.version_id)
        money = money_of(standing.counters, plan.budget_usd)
        voters = await self._programs.beside(parent, plan.ensemble_of)
        found: Mapping[str, Any] = {
            "baseline_score": optimized.baseline_score,
            "score": optimized.score,
            "scored_on": optimized.scored_on,
            "cost_usd_per_call": ending.cost_usd_per_call,
            "stopped": ending.stopped,
            "demos": traced(
                optimized.demos[:MOST_DEMOS],
                optimized.state,
                await line_of(self._programs, [parent, *voters]),
            ),
        }
        lineage = lineage_of(plan, optimization.id, money, found)
        return await self._programs.optimized(program, optimized.state, parent=parent, lineage=lineage)

    async def deployed(
        self, optimization: Optimization, version: Version, principal: Principal, job: Job
    ) -> dict[str, Any]:
        """What the result says of it. A gate that is not met, rights that are gone and a job that was taken away

        leave the version where it is. So does having been deployed before: an attempt that died after that must not
        undo what people did since.
        """
        author = Author(optimization.project, optimization.author or LOCAL)
        program = await self._programs.get(optimization.project, optimization.plan.program)
        if program.deployed_version_id == version.id:
            return {"deployed": True}
        history = await self._programs.history(program)
        if any(one.version_id == version.id for one in history):
            return _undeployed(
                f"Version {version.number} was deployed before, and another one has been since; deploy it by hand if "
                "it is to answer again."
            )
        try:
            check_may(principal, "programs:write")
            told = {
                "version": version.number,
                "before": await self._programs.number_deployed(program),
                "force": False,
                "optimization": optimization.id,
            }
            async with self._audit.operation(author, "program.deploy", program.name, **told):
                await self._programs.deploy(program, version, by=job)
        except (Conflict, Forbidden) as refused:
            return _undeployed(refused.message)
        return {"deployed": True}


def _undeployed(reason: str) -> dict[str, Any]:
    return {"deployed": False, "not_deployed": reason}
