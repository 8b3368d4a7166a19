"""What is known of how good a version is, and whether that is enough to take another one's place."""

from msgspec.structs import replace

from dspex.kit.errors import Conflict
from dspex.kit.wording import usd_text
from dspex.programs.records import Measured, Program, Version


def measured_by_lineage(version: Version) -> Measured | None:
    """What the optimization that made a version saw of it on examples that were held out."""
    lineage = version.lineage
    if lineage is None:
        return None
    metric, held_out = lineage.get("metric") or {}, lineage.get("validation") or {}
    source = held_out if "name" in held_out else lineage["dataset"]
    by = f"optimization {lineage.get('optimization')}"
    if metric:
        by += f", {metric.get('reference', metric['name'])} on {source['name']}@{source['version']}"
    score = lineage.get("score") if lineage.get("scored_on") == "validation" else None
    return Measured(score, lineage.get("cost_usd_per_call"), by)


def check_gates(program: Program, version: Version, measured: Measured | None) -> None:
    """Raises Conflict (code gate_not_met) with the numbers."""
    gates = program.settings.gates
    if gates is None:
        return
    lacking = []
    score = None if measured is None else measured.score
    cost = None if measured is None else measured.cost_usd_per_call
    if gates.min_score is not None and (score is None or score < gates.min_score):
        seen = "has no score on held-out examples" if score is None else f"scored {score:.4g}"
        lacking.append(f"it {seen} and needs {gates.min_score:.4g}")
    most = gates.max_cost_usd_per_call
    if most is not None and (cost is None or cost > most):
        seen = "is not known" if cost is None else f"is {usd_text(cost)}"
        lacking.append(f"what a prediction costs {seen} and may be {usd_text(most)}")
    if lacking:
        by = "" if measured is None else f" (by {measured.by})"
        raise Conflict(
            f"Version {version.number} of {program.name!r} is not let through by the program's gates: "
            f"{'; '.join(lacking)}{by}. Name an evaluation of this version that shows more, or force it.",
            code="gate_not_met",
        )


def check_no_worse(newest: Version, present: Version) -> None:
    """That the newest version is no worse than what answers, as far as a score of that is known.

    For who did not say which version is meant. Raises Conflict (code version_unclear).
    """
    shown, least = (
        measured_by_lineage(newest),
        _measured_beside(newest, present) or measured_by_lineage(present),
    )
    if least is None or least.score is None:
        return
    score = None if shown is None else shown.score
    if score is not None and score >= least.score:
        return
    by = "" if shown is None else f" (by {shown.by})"
    seen = f"has no score on held-out examples{by}" if score is None else f"scored {score:.4g}{by}"
    raise Conflict(
        f"Version {newest.number}, the newest that can run, {seen}; version {present.number}, which answers, scored "
        f"{least.score:.4g} (by {least.by}). Say which version is to answer, or name an evaluation of it.",
        code="version_unclear",
    )


def _measured_beside(newest: Version, present: Version) -> Measured | None:
    """What the optimization that made one of the other saw of that other, on the same rows."""
    shown, lineage = measured_by_lineage(newest), newest.lineage or {}
    if newest.parent_id != present.id or shown is None or shown.score is None:
        return None
    return replace(shown, score=lineage.get("baseline_score"))
