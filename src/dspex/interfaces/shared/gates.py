"""Deploying by the program's gates, and what an evaluation shows them of a version."""

from msgspec import Struct

from dspex.evaluations.evidence import MOST_UNKNOWN
from dspex.evaluations.records import Evaluation, EvaluationFilter
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Conflict
from dspex.optimizations.learned import learned_by
from dspex.programs.gating import check_no_worse, measured_by_lineage
from dspex.programs.records import Measured, Program, Version
from dspex.programs.rules import check_live


class Deployed(Struct, frozen=True):
    """A version that answers now, with what its deployment went by: an evaluation that was named, or its lineage.

    `before` is the number of the version that answered until then, None where none did.
    """

    program: Program
    version: Version
    measured: Measured | None
    before: int | None


async def deployed(
    services: Services,
    program: Program,
    number: int | None,
    evaluation_id: str | None,
    *,
    force: bool,
    sees_evaluations: bool = True,
) -> Deployed:
    """Without a number the version that the evaluation is of, or the newest that can run.

    The newest is not taken, unless by `force`, where it is known to be worse than what answers (version_unclear).
    Raises Missing, Conflict; a refusal names an evaluation of the version to whoever `sees_evaluations`.
    """
    check_live(program)
    programs, evaluation = services.programs, None
    if evaluation_id is not None:
        evaluation = await services.evaluations.get(program.project, evaluation_id)
        if number is None and evaluation.program == program.name:
            number = evaluation.version
    unnamed, before = number is None, await programs.number_deployed(program)
    version = await (
        programs.deployable(program) if number is None else programs.version_numbered(program, number)
    )
    measured = measured_by_lineage(version)
    if evaluation is not None:
        measured = await _measured_by(services, program, version, evaluation)
    try:
        if unnamed and not force and program.deployed_version_id not in (None, version.id):
            check_no_worse(version, await programs.current(program))
        after = await programs.deploy(program, version, force=force, measured=measured)
    except Conflict as refused:
        if evaluation is not None or not sees_evaluations:
            raise
        if refused.code not in ("gate_not_met", "version_unclear"):
            raise
        raise await _with_evaluation(services, program, version, refused) from None
    return Deployed(after, version, measured, before)


async def _with_evaluation(
    services: Services, program: Program, version: Version, refused: Conflict
) -> Conflict:
    """The refusal, with the newest evaluation of the version that could be named."""
    where = EvaluationFilter(program=program.name, status="completed", version=version.number)
    found = (await services.evaluations.list(program.project, where, limit=1, cursor=None)).data
    if not found:
        return refused
    mean = (found[0].result or {}).get("mean")
    said = "no score" if mean is None else f"a mean of {mean:.4g}"
    return Conflict(
        f"{refused.message} The newest of version {version.number}: {_by(found[0])}, with {said}.",
        code=refused.code,
    )


def _by(evaluation: Evaluation) -> str:
    metric = evaluation.metric
    return (
        f"evaluation {evaluation.id}, {metric.reference or metric.name} on "
        f"{evaluation.dataset}@{evaluation.dataset_version}"
    )


async def _measured_by(services: Services, program: Program, version: Version, found: Evaluation) -> Measured:
    """Raises Conflict (code wrong_evaluation) for one of something else, or that shows too little."""
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
    return Measured(evidence.score, evidence.cost_usd_per_call, _by(found))


async def _check_held_out(services: Services, version: Version, evaluation: Evaluation) -> None:
    """What the version, or one that it was made from, learned from says nothing of how it does on anything else."""
    learned = await learned_by(services.programs, services.datasets, [version])
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
