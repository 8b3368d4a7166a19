"""Deploying by the program's gates, and what an evaluation shows them of a version."""

from dspex.evaluations.evidence import MOST_UNKNOWN
from dspex.evaluations.records import Evaluation
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Conflict
from dspex.programs.records import Measured, Program, Version


async def measured_by(services: Services, program: Program, version: Version, evaluation_id: str) -> Measured:
    """Raises Missing, Conflict (code wrong_evaluation) for one of something else, or that shows too little."""
    found = await services.evaluations.get(program.project, evaluation_id)
    if (found.program, found.version) != (program.name, version.number):
        raise _wrong(
            f"This evaluation is of version {found.version} of {found.program!r}, not of version {version.number} of "
            f"{program.name!r}."
        )
    if found.status != "completed":
        raise _wrong(f"The evaluation is {found.status}; name one that completed.")
    rows = (await services.datasets.get(program.project, found.dataset, found.dataset_version)).rows
    evidence = await services.evaluations.evidence(found)
    stopped = (found.result or {}).get("stopped")
    if stopped is not None or evidence.examples < rows:
        why = "" if stopped is None else f" (stopped: {stopped})"
        raise _wrong(
            f"The evaluation is of {evidence.examples} of {rows} rows of {found.dataset!r}{why}; name one of all rows."
        )
    if not evidence.enough:
        raise _wrong(
            f"{evidence.unknown} of {rows} examples have no score, through no fault of the program, and "
            f"{evidence.scored} have one; at most {MOST_UNKNOWN:.0%} may have none. Retry it "
            f"(POST /v1/jobs/{found.id}/retry), or evaluate again."
        )
    await _check_held_out(services, version, found)
    gates = program.settings.gates
    if gates is not None and gates.max_cost_usd_per_call is not None and not evidence.asked:
        raise _wrong(
            "All that was scored was answered from a cache, which says nothing of what a prediction costs; evaluate "
            "with `use_cache` false."
        )
    return Measured(evidence.score, evidence.cost_usd_per_call, f"evaluation {found.id}")


async def _check_held_out(services: Services, version: Version, evaluation: Evaluation) -> None:
    """What the version, or one that it was made from, learned from says nothing of how it does on anything else."""
    learner: Version | None = version
    while learner is not None:
        learned = (learner.lineage or {}).get("dataset") or {}
        if learned.get("digest") == evaluation.dataset_digest:
            raise _wrong(
                f"The evaluation is over {evaluation.dataset!r}, which version {learner.number} was optimized on; name "
                "one over rows that were held out."
            )
        parent = learner.parent_id
        learner = None if parent is None else await services.programs.version(version.project, parent)


def _wrong(message: str) -> Conflict:
    return Conflict(message, code="wrong_evaluation")


async def deployed(
    services: Services,
    project: str,
    name: str,
    number: int | None,
    evaluation: str | None,
    *,
    force: bool,
) -> Version:
    """The version that answers now. Raises Missing, Conflict."""
    program = await services.programs.get(project, name)
    if number is None:
        version = await services.programs.deployable(program)
    else:
        version = await services.programs.version_numbered(program, number)
    measured = None
    if evaluation is not None:
        measured = await measured_by(services, program, version, evaluation)
    await services.programs.deploy(program, version, force=force, measured=measured)
    return version
