"""What goes wrong with evaluations."""

from dspex.kit.errors import Conflict, Invalid, Missing, Problem


def missing(evaluation_id: str) -> Missing:
    return Missing(f"There is no evaluation {evaluation_id[:80]!r}.", code="evaluation_missing")


def dataset_deleted(name: str, version: int) -> Conflict:
    return Conflict(
        f"Version {version} of the dataset {name!r} was deleted while it was evaluated; what was scored before stays.",
        code="dataset_deleted",
    )


def not_fitting(message: str, problems: list[Problem]) -> Invalid:
    return Invalid(message, code="dataset_not_fitting", problems=problems)


def not_comparable(message: str) -> Conflict:
    return Conflict(message, code="not_comparable")
