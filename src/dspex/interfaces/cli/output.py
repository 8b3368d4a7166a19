"""How commands print: tables for people, `--json` for programs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dspex.kit import json as exact
from dspex.kit.wording import usd_text

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="The configuration file.")]
ProjectOption = Annotated[str, typer.Option("--project", help="Whose.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the whole document as JSON.")]


def print_json(document: Any) -> None:
    """Times as in the API. What has no UTF-8 form (lone surrogates) makes the whole text plain ASCII."""
    plain = json.loads(exact.dumps(document))
    text = json.dumps(plain, indent=2, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(plain, indent=2)
    typer.echo(text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
    """Columns as wide as their widest cell; `empty` is said instead of a table without rows.

    Numbers in columns that end in `usd` are dollars.
    """
    cells = [[cell_text(name, value) for name, value in zip(columns, row, strict=True)] for row in rows]
    if not cells:
        typer.echo(empty)
        return
    widths = [max(len(row[index]) for row in [list(columns), *cells]) for index in range(len(columns))]
    for row in [[column.upper() for column in columns], *cells]:
        print_text("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_fields(document: Mapping[str, Any], names: Sequence[str]) -> None:
    """One line a member, aligned; members that are absent or null are left out. Those in `…usd` are dollars."""
    there = [name for name in names if document.get(name) is not None]
    width = max(map(len, there), default=0)
    for name in there:
        print_text(f"{name.ljust(width)}  {cell_text(name, document[name])}")


def score_text(score: float | None) -> str | None:
    """Four decimals, as in every table."""
    return None if score is None else f"{score:.4f}"


def print_text(text: str) -> None:
    """A line as it is; what has no UTF-8 form is shown as an escape."""
    typer.echo(text.encode(errors="backslashreplace").decode())


def cell_text(name: str, value: Any) -> str:
    """A value as it stands in a table's column, or a line, of that name."""
    if value is None:
        return "-"
    if name.endswith("usd") and isinstance(value, int | float):
        return usd_text(value)
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, dict | list | tuple):
        return exact.dumps(value).decode()
    return str(value)
