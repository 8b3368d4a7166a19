"""What `dspex optimize` shows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dspex.interfaces.cli.output import print_fields, score_text
from dspex.interfaces.cli.waiting import telling_why
from dspex.kit import json
from dspex.kit.wording import counted, usd_text

NOT_YET = "not yet scored"
Tell = Callable[[Mapping[str, Any]], None]


@contextmanager
def watching() -> Iterator[Tell]:
    """A line on standard error that moves; nothing where that is no terminal. It is told whole documents."""
    # Not above: whoever serves has no need of it.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[candidates]}"),
        TextColumn("{task.fields[best]}"),
        TextColumn("{task.fields[spent]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("queued", total=None, candidates="", best="", spent="")

        why = telling_why(console)

        def tell(document: Mapping[str, Any]) -> None:
            error = document["error"]
            why(document["status"], error and error["message"])
            bar.update(
                task,
                description=document["phase"] or document["status"],
                total=document["candidates_of"],
                completed=document["candidates"],
                candidates=_candidates(document),
                best=scores_text(document),
                spent=_spent(document),
            )

        yield tell


def print_optimization(document: Mapping[str, Any]) -> None:
    result = document.get("result") or {}
    dataset, validation = document["dataset"], document["validation"]
    held_out = (
        f"{document['validation_share']:.0%} of it"
        if validation is None
        else f"{validation['name']}@{validation['version']}"
    )
    deployed = "yes" if result.get("deployed") else result.get("not_deployed")
    shown: dict[str, Any] = {
        "id": document["id"],
        "status": _status(document),
        "program": f"{document['program']} version {document['version']}",
        "optimizer": document["optimizer"],
        "config": document["config"] or None,
        "metric": _metric(document["metric"]),
        "dataset": f"{dataset['name']}@{dataset['version']}, {counted(document['train_rows'], 'row')}",
        "held out": f"{held_out}, {counted(document['validation_rows'], 'row')}",
        "phase": document["phase"] if document["completed_at"] is None else None,
        "candidates": _candidates(document) or None,
        "score": scores_text(document) or None,
        "cost": _spent(document),
        "cost per point": _usd(result.get("cost_usd_per_point")),
        "calls": _calls(document),
        "attempts": document["attempts"],
        "error": document["error"] and document["error"]["message"],
        "stopped by": result.get("stopped"),
        "version": document["result_version"],
        "deployed": deployed if document["deploy"] else None,
    }
    print_fields(shown, list(shown))


def print_estimate(document: Mapping[str, Any]) -> None:
    calls, usd = document["calls"], document["usd"]
    shown = {
        "program": f"{document['program']} version {document['version']}",
        "optimizer": document["optimizer"],
        "rows": f"{document['train_rows']} to learn from, {document['validation_rows']} held out",
        "model calls": calls and f"{calls['low']:.0f} to {calls['high']:.0f}",
        "cost": usd and f"{_usd(usd['low'])} to {_usd(usd['high'])}, by {document['basis']}",
        "not known": document["reason"],
    }
    print_fields(shown, list(shown))


def _status(document: Mapping[str, Any]) -> str:
    result = document.get("result") or {}
    if document["status"] == "completed" and result.get("improved") is False:
        return "completed, no better than before"
    return str(document["status"])


def _metric(metric: Mapping[str, Any]) -> str:
    if metric.keys() == {"name"}:
        return str(metric["name"])
    return str(metric.get("reference") or json.dumps(metric).decode())


def _candidates(document: Mapping[str, Any]) -> str:
    of = document["candidates_of"]
    if not document["candidates"]:
        return ""
    return f"{document['candidates']}" + (f" of {of}" if of else "")


def scores_text(document: Mapping[str, Any]) -> str:
    """Of the version it began with, and of the best; empty while neither is known."""
    before, now = document["baseline_score"], document["score"]
    if before is None and now is None:
        return ""
    return f"{score_text(before) or NOT_YET} -> {score_text(now) or NOT_YET}"


def _spent(document: Mapping[str, Any]) -> str:
    cost, budget = _usd(document["cost_usd"]) or "of unknown price", document["budget_usd"]
    return cost + (f" of {_usd(budget)}" if budget is not None else "")


def _usd(amount: float | None) -> str | None:
    return None if amount is None else usd_text(amount)


def _calls(document: Mapping[str, Any]) -> str:
    told = [f"{document['lm_calls']}"]
    for name in ("replayed", "repeated", "failed"):
        if document[f"{name}_calls"]:
            told.append(f"{document[f'{name}_calls']} {name}")
    return ", ".join(told)
