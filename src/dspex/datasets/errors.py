"""What goes wrong with datasets."""

from collections.abc import Sequence

from dspex.kit.errors import Conflict, Invalid, Missing, Problem


def missing(name: str, version: int | None = None) -> Missing:
    which = f"dataset {name!r}" if version is None else f"version {version} of dataset {name!r}"
    return Missing(f"There is no {which}.", code="dataset_missing")


def row_missing(row_id: str) -> Missing:
    return Missing(f"This version has no row {row_id!r}.", code="dataset_row_missing")


def bad_dataset(bad_rows: int, problems: Sequence[Problem]) -> Invalid:
    """`problems` are the first of them."""
    first = problems[0]
    count = "One row is" if bad_rows == 1 else f"{bad_rows} rows are"
    return Invalid(
        f"{count} bad, the first: {first.pointer} {first.message}. Nothing was kept; correct them and send it again.",
        code="bad_dataset",
        problems=problems,
    )


def empty_dataset() -> Invalid:
    return Invalid("There is not a single row; a dataset has one at least.", code="empty_dataset")


def too_large(message: str) -> Invalid:
    return Invalid(message, code="dataset_too_large")


def upload_lost() -> Conflict:
    return Conflict(
        "What was loaded was swept away meanwhile, as it took more than a day; send it again.",
        code="dataset_upload_lost",
    )
