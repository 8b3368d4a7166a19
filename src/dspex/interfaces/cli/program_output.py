"""What `dspex programs show` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from dspex.interfaces.cli.evaluation_output import metric_text
from dspex.interfaces.cli.output import print_fields, print_table, print_text, score_text
from dspex.kit.wording import counted, shortened, usd_text

_RUNS = ("module", "adapter", "model", "executor", "executor_reason", "error")
# Characters of a reason; the version alone has all of it.
_REASON = 160


def print_program(program: Mapping[str, Any], versions: Sequence[Mapping[str, Any]]) -> None:
    print_fields(program, ("name", "description", "status", "source", "deployed_version", "on_violation"))
    _print_content(program["version"])
    typer.echo("")
    rows = [
        (
            one["version"],
            one["status"],
            _score(one["lineage"]),
            one["digest"][:19],
            one["created_at"],
        )
        for one in versions
    ]
    print_table(("version", "status", "score", "digest", "created_at"), rows, "No versions.")
    for one in versions:
        if one.get("error"):
            print_text(f"version {one['version']}: {shortened(one['error'], _REASON)}")
    if versions and versions[0]["status"] == "error":
        name, number = program["name"], versions[0]["version"]
        print_text(
            f"Mend it and `dspex reload`, or `dspex programs initialize {name} --version {number}` to try it as it is."
        )


def print_version(version: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> None:
    """With how it was made, and what evaluations that completed say of it."""
    print_fields(version, ("program", "version", "status", "digest", "created_at"))
    _print_content(version)
    if evaluations:
        typer.echo("")
        rows = [
            (
                one["id"],
                metric_text(one["metric"]),
                f"{one['dataset']}@{one['dataset_version']}",
                *_found(one),
            )
            for one in evaluations
        ]
        print_table(("evaluation", "metric", "dataset", "mean", "failed"), rows, "")


def _print_content(version: Mapping[str, Any]) -> None:
    print_fields(version, _RUNS)
    print_lineage(version["lineage"])
    if version["pipeline"] is not None:
        typer.echo("")
        columns = ("name", "module", "model", "when")
        print_table(columns, [[one[key] for key in columns] for one in version["pipeline"]["steps"]], "")


def print_lineage(lineage: Mapping[str, Any] | None) -> None:
    """How a version came to be, if an optimization made it."""
    if lineage is None:
        return
    dataset, parent = lineage["dataset"], lineage["parent"]
    voters = ", ".join(map(str, lineage.get("ensemble_of") or ()))
    per_call = lineage.get("cost_usd_per_call")
    shown = {
        "made by": f"{lineage['optimizer']}, of version {parent['version']}",
        "votes of": f"versions {voters}" if voters else None,
        "learned from": f"{dataset['name']}@{dataset['version']}, {counted(lineage['train_rows'], 'row')}",
        "metric": metric_text(lineage["metric"]) if "metric" in lineage else None,
        "score": f"{score_text(lineage['baseline_score'])} -> {score_text(lineage['score'])} ({lineage['scored_on']})",
        "cost": None if lineage["cost_usd"] is None else usd_text(lineage["cost_usd"]),
        "cost per call": None if per_call is None else usd_text(per_call),
        "optimization": lineage["optimization"],
    }
    typer.echo("")
    print_fields(shown, list(shown))


def _score(lineage: Mapping[str, Any] | None) -> str | None:
    """On held-out rows, as gates look at it."""
    held_out = lineage is not None and lineage.get("scored_on") == "validation"
    return score_text(lineage["score"]) if lineage is not None and held_out else None


def _found(evaluation: Mapping[str, Any]) -> tuple[str | None, int | None]:
    report = evaluation["result"] or {}
    return score_text(report.get("mean")), report.get("failed")
