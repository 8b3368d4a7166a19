"""What `dspex eval` shows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from dspex.interfaces.cli.output import cell_text, print_fields, print_table, print_text, score_text
from dspex.interfaces.cli.waiting import telling_why
from dspex.kit import json
from dspex.kit.wording import counted, usd_text

Tell = Callable[[Mapping[str, Any]], None]
LONGEST_CELL = 60


@contextmanager
def watching(examples: int) -> Iterator[Tell]:
    """A progress bar on standard error; nothing where that is no terminal. It is told whole documents."""
    # Not above: whoever serves has no need of it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("mean {task.fields[mean]}"),
        TextColumn("{task.fields[failed]} failed"),
        TextColumn("{task.fields[cost]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("examples", total=examples, mean="-", failed=0, cost="")

        why = telling_why(console)

        def tell(document: Mapping[str, Any]) -> None:
            error, progress = document["error"], document["progress"]
            why(document["status"], error and error["message"])
            if progress is None:
                return
            mean, cost = progress["mean"], progress["cost_usd"]
            bar.update(
                task,
                completed=progress["scored"] + progress["failed"],
                mean=score_text(mean) or "-",
                failed=progress["failed"],
                cost="" if not cost else usd_text(cost),
            )

        yield tell


def print_evaluation(evaluation: Mapping[str, Any]) -> None:
    report = evaluation["result"] or {}
    shown: dict[str, Any] = {
        "id": evaluation["id"],
        "program": f"{evaluation['program']} version {evaluation['version']}",
        "dataset": f"{evaluation['dataset']}@{evaluation['dataset_version']}",
        "metric": metric_text(evaluation["metric"]),
        "status": _status(evaluation),
        "error": evaluation["error"] and evaluation["error"]["message"],
        "mean": _mean(report) or _so_far(evaluation),
        "median": score_text(report.get("median")),
        "stdev": score_text(report.get("stdev")),
        "examples": _examples(evaluation),
        "failures": _failures(report),
        "cost_usd": report.get("cost_usd"),
        # Most metrics ask no model.
        "metric_cost_usd": report.get("metric_cost_usd") or None,
        "lm_calls": report.get("lm_calls"),
        "tokens": report.get("tokens"),
        "latency": _latency(report),
        "cached": None if report.get("cached_share") is None else f"{report['cached_share']:.0%}",
        "created_at": evaluation["created_at"],
        "completed_at": evaluation["completed_at"],
    }
    print_fields(shown, list(shown))


def metric_text(metric: Mapping[str, Any]) -> str:
    if metric["name"] == "python":
        return str(metric["reference"])
    return f"{metric['name']}({', '.join(metric['fields'])})" if "fields" in metric else str(metric["name"])


def _status(evaluation: Mapping[str, Any]) -> str:
    stopped = (evaluation["result"] or {}).get("stopped")
    return f"{evaluation['status']}, stopped by its budget" if stopped == "budget" else evaluation["status"]


def _mean(report: Mapping[str, Any]) -> str | None:
    if report.get("mean") is None:
        return None
    interval = report["interval"]
    around = "" if interval is None else f" (95% {interval['low']:.4f} to {interval['high']:.4f})"
    return f"{report['mean']:.4f}{around}"


def _so_far(evaluation: Mapping[str, Any]) -> str | None:
    mean = (evaluation["progress"] or {}).get("mean")
    return None if mean is None else f"{mean:.4f} so far"


def _examples(evaluation: Mapping[str, Any]) -> str:
    known = evaluation["result"] or evaluation["progress"] or {}
    scored, failed = known.get("scored", 0), known.get("failed", 0)
    return f"{scored} scored, {failed} failed of {evaluation['examples']}"


def _failures(report: Mapping[str, Any]) -> str | None:
    found = [f"{one['examples']} {one['code']} ({one['origin']})" for one in report.get("failures", ())]
    return ", ".join(found) or None


def _latency(report: Mapping[str, Any]) -> str | None:
    latency = report.get("latency_ms")
    return None if latency is None else f"p50 {latency['p50']:.1f} ms, p95 {latency['p95']:.1f} ms"


def print_results(results: list[dict[str, Any]]) -> None:
    rows = [
        (
            one["position"],
            score_text(one["score"]),
            _short(one["outputs"]) if one["error"] is None else _told(one["error"]),
            one["latency_ms"],
            one["cost_usd"],
            one["execution_id"],
        )
        for one in results
    ]
    columns = ("row", "score", "outputs or failure", "ms", "usd", "execution")
    print_table(columns, rows, "No such examples.")


def _told(error: Mapping[str, Any]) -> str:
    return _cut(f"{error['origin']}: {error['code']}: {error['message']}")


def _short(value: Any) -> str:
    return _cut(json.dumps(value).decode(errors="replace"))


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST_CELL else flat[: LONGEST_CELL - 1] + "…"


def print_comparison(comparison: Mapping[str, Any], differences: list[dict[str, Any]]) -> None:
    a, b, paired = comparison["a"], comparison["b"], comparison["paired"]
    names = ["scored", "failed", "cost_usd", "lm_calls", "tokens"]
    if a.get("metric_cost_usd") or b.get("metric_cost_usd"):
        names.insert(3, "metric_cost_usd")
    rows = [("mean", score_text(a["mean"]), score_text(b["mean"]))]
    rows += [(name, cell_text(name, a[name]), cell_text(name, b[name])) for name in names]
    for share in ("p50", "p95"):
        rows.append((f"{share} ms", *(side["latency_ms"] and side["latency_ms"][share] for side in (a, b))))
    print_table(
        ("", f"a: {a['program']} v{a['version']}", f"b: {b['program']} v{b['version']}"), rows, "Nothing."
    )
    typer.echo("")
    if paired["difference"] is None:
        typer.echo("They have no scored example in common.")
        return
    interval = paired["interval"]
    around = "" if interval is None else f" (95% {interval['low']:+.4f} to {interval['high']:+.4f})"
    print_text(
        f"b - a        {paired['difference']:+.4f}{around}, over {counted(paired['examples'], 'example')}"
    )
    print_text(f"b against a  {paired['wins']} better, {paired['losses']} worse, {paired['ties']} the same")
    print_text(f"p-value      {paired['p_value']:.4g} (sign-flip permutation test, {paired['test']})")
    if differences:
        typer.echo("")
        table = [
            (one["position"], _score(one["a"]), _score(one["b"]), score_text(one["difference"]))
            for one in differences
        ]
        print_table(("row", "a", "b", "b - a"), table, "")


def _score(result: Mapping[str, Any] | None) -> Any:
    if result is None:
        return "not run"
    return score_text(result["score"]) if result["error"] is None else result["error"]["code"]
