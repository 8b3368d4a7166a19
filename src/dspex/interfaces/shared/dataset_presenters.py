"""Datasets and feedback as documents."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dspex.datasets.records import Dataset, Row, Verdict
from dspex.executions.feedback.records import Feedback
from dspex.kit.records import asdict

if TYPE_CHECKING:
    from dspex.interfaces.shared import dataset_documents as shown


def dataset(record: Dataset) -> "shown.Dataset":
    return {
        "name": record.name,
        "version": record.version,
        "kind": record.kind,
        "description": record.description,
        "digest": record.digest,
        "rows": record.rows,
        "fields": record.fields,
        "metadata": record.metadata,
        "origin": record.origin,
        "created_at": record.created_at,
    }


def row(record: Row) -> "shown.Row":
    return {
        "position": record.position,
        "id": record.id,
        "inputs": record.inputs,
        "outputs": record.outputs,
        "metadata": record.metadata,
        "provenance": record.provenance,
    }


def exported(record: Row) -> dict[str, Any]:
    """A line of an export, which can be loaded again."""
    line: dict[str, Any] = {"inputs": record.inputs, "outputs": record.outputs}
    return {**line, "metadata": record.metadata} if record.metadata else line


def verdict(record: Verdict) -> "shown.Verdict":
    return {
        "valid": not record.bad_rows,
        "checked": record.checked,
        "bad_rows": record.bad_rows,
        "unlabelled": record.unlabelled,
        "bad": [
            {
                "position": one.position,
                "id": one.id,
                "problems": [
                    {"pointer": problem.pointer, "code": problem.code, "message": problem.message}
                    for problem in one.problems
                ],
            }
            for one in record.bad
        ],
        "next_position": record.next_position,
    }


def sample(of: Dataset, rows: Sequence[Row], seed: int) -> "shown.Sample":
    return {
        "name": of.name,
        "version": of.version,
        "digest": of.digest,
        "seed": seed,
        "data": [row(one) for one in rows],
    }


def statistics(of: Dataset, report: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": of.name, "version": of.version, "digest": of.digest, **report}


def feedback(record: Feedback) -> "shown.Feedback":
    document = asdict(record)
    del document["project"]
    return document  # type: ignore[return-value]
