"""One part's outcome: tables to print, figures to store, targets to check."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Rows:
    """A table; the first column is text, the others are figures."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Check:
    """A figure against its target, for instance ("CPU ms per request", 0.81, "<= 1.0", True)."""

    what: str
    figure: float
    target: str
    met: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    tables: list[Rows]
    figures: dict[str, Any]
    checks: list[Check] = field(default_factory=list)


def at_most(what: str, figure: float, limit: float) -> Check:
    return Check(what, round(figure, 3), f"<= {limit:g}", figure <= limit)


def at_least(what: str, figure: float, limit: float) -> Check:
    return Check(what, round(figure, 3), f">= {limit:g}", figure >= limit)


def show(console: Console, outcome: Outcome) -> None:
    for one in outcome.tables:
        table = Table(title=one.title, title_justify="left", title_style="bold")
        for index, column in enumerate(one.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in one.rows:
            table.add_row(*row)
        console.print(table)
    for check in outcome.checks:
        verdict = "met" if check.met else "[bold]MISSED[/bold]"
        console.print(f"  {check.what}: {check.figure:g}, target {check.target}: {verdict}")
    console.print()
