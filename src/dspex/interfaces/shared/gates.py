"""Deploying by the program's gates, and what an evaluation shows them of a version."""

from msgspec.structs import replace

from dspex.evaluations.evidence import MOST_UNKNOWN
from dspex.evaluations.records import Evaluation
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Conflict
from dspex.optimizations.learned import learned_by
from dspex.programs.records import Measured, Program, ProgramSettings, Version


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
            f"{evidence.scored} have one; at most {MOST_UNKNOWN:.0%} may have none. Evaluate again "
            "(POST /v1/evaluations)."
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
    learned = await learned_by(services.programs, services.datasets, version)
    if not learned:
        return
    dataset = await services.datasets.get(version.project, evaluation.dataset, evaluation.dataset_version)
    inputs = [digest async for page in services.datasets.inputs(dataset) for digest in page]
    for one in learned:
        known = sum(digest in one.inputs for digest in inputs) if one.inputs is not None else 0
        if known:
            raise _wrong(
                f"{known} of {len(inputs)} rows of {evaluation.dataset!r} have the inputs of rows that version "
                f"{one.version} was optimized on; name an evaluation over rows that were held out."
            )
    for one in learned:
        if one.inputs is None:
            raise _wrong(
                f"Version {one.version} was optimized on {one.dataset!r}, which was deleted since, so nobody can know "
                f"which rows of {evaluation.dataset!r} it has not seen; deploy by force, or a version not made from it."
            )


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
    declared: ProgramSettings | None = None,
) -> Version:
    """The version that answers now; `declared` has the gates, where the program's own may be of before.

    Raises Missing, Conflict.
    """
    program = await services.programs.get(project, name)
    if declared is not None and program.source == "file":
        program = replace(program, settings=replace(program.settings, gates=declared.gates))
    if number is None:
        version = await services.programs.deployable(program)
    else:
        version = await services.programs.version_numbered(program, number)
    measured = None
    if evaluation is not None:
        measured = await measured_by(services, program, version, evaluation)
    await services.programs.deploy(program, version, force=force, measured=measured)
    return version
