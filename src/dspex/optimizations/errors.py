"""What goes wrong with optimizations."""

from collections.abc import Sequence

from dspex.kit.errors import Conflict, Exhausted, Invalid, Missing, Problem


class BudgetSpent(Exhausted):
    """Nothing may be spent any more: the optimizer ends with the best that it has."""

    default_code = "optimization_budget"


def missing(optimization_id: str) -> Missing:
    return Missing(f"There is no optimization {optimization_id!r}.", code="optimization_missing")


def bad_order(message: str, pointer: str, problem: str | None = None, *, code: str) -> Invalid:
    return Invalid(message, code=code, problems=[Problem(pointer, code, problem or message)])


def overlap(count: int, first: Sequence[str]) -> Invalid:
    """`first` are ids of rows of the validation set."""
    return bad_order(
        f"{count} rows of the validation set have the inputs of rows of the training set, so the score would not be "
        f"held out; take them out of one of the two. The first: {', '.join(first)}.",
        "/validation",
        f"{count} rows are in both",
        code="validation_overlaps",
    )


def known_already(count: int, first: Sequence[str]) -> Invalid:
    """`first` are ids of rows of the validation set."""
    return bad_order(
        f"{count} rows of the validation set have the inputs of rows that this version, or one that it was made from, "
        f"was optimized on, so the score would not be held out; leave them out. The first: {', '.join(first)}.",
        "/validation",
        f"{count} rows were learned from before",
        code="validation_overlaps",
    )


def nothing_fresh(rows: int, fresh: int, wanted: int) -> Invalid:
    return bad_order(
        f"{wanted} of {rows} rows would be held out, but this version, or one that it was made from, was optimized on "
        f"all but {fresh} that could be; give more rows or a validation set of others, or name a version that was not.",
        "/dataset",
        f"{fresh} rows were not learned from before",
        code="validation_overlaps",
    )


def not_known(version: int, dataset: str) -> Invalid:
    return bad_order(
        f"Version {version} was optimized on {dataset!r}, which was deleted since, so nobody can know what it has not "
        "seen; name a version that was not made from it.",
        "/version",
        code="validation_unknown",
    )


def nothing_kept(optimization_id: str) -> Conflict:
    return Conflict(
        f"The optimization {optimization_id} has found nothing yet that could become a version.",
        code="nothing_found",
    )


def journal_deleted(optimization_id: str) -> Conflict:
    return Conflict(
        f"The journal of the optimization {optimization_id} is deleted by now, so a retry would pay for everything "
        "again, beyond its budget. Order a new one; POST /v1/optimizations/{id}/keep still has the best of this one.",
        code="journal_deleted",
    )


def unfinished(optimization_id: str) -> Conflict:
    return Conflict(
        f"The optimization {optimization_id} is not over, and what it has to say of its best may change; pause or "
        "cancel it first, or wait for its end.",
        code="optimization_unfinished",
    )
