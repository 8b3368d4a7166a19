"""What `dspex datasets` shows."""

import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from dspex.datasets.records import Row
from dspex.datasets.service import Tell
from dspex.interfaces.cli.batch_output import replacing
from dspex.interfaces.cli.output import print_fields, print_table, print_text
from dspex.interfaces.shared import dataset_presenters as presenters
from dspex.kit import json
from dspex.kit.wording import counted


@contextmanager
def loading(file: Path) -> Iterator[Tell]:
    """A progress bar over the bytes of the file, on standard error; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TextColumn("{task.fields[rows]} rows"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("file", total=file.stat().st_size, rows=0)

        def tell(rows: int, read: int) -> None:
            progress.update(task, completed=read, rows=rows)

        yield tell


async def export(pages: AsyncIterator[Sequence[Row]], output: Path | None) -> int:
    """Writes JSON lines; how many. A file is there when it is whole."""
    count = 0
    if output is None:
        async for page in pages:
            sys.stdout.buffer.write(_lines(page))
            count += len(page)
        sys.stdout.buffer.flush()
        return count
    with replacing(output) as file:
        async for page in pages:
            file.write(_lines(page))
            count += len(page)
    return count


def save_lines(chunks: Iterable[bytes], output: Path | None) -> int:
    """As `export`, of what a node sends."""
    count = 0
    if output is None:
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
            count += chunk.count(b"\n")
        sys.stdout.buffer.flush()
        return count
    with replacing(output) as file:
        for chunk in chunks:
            file.write(chunk)
            count += chunk.count(b"\n")
    return count


def _lines(rows: Sequence[Row]) -> bytes:
    return b"".join(json.dumps(presenters.exported(one)) + b"\n" for one in rows)


def print_verdict(verdict: Mapping[str, Any]) -> None:
    for bad in verdict["bad"]:
        for problem in bad["problems"]:
            print_text(f"row {bad['position']} {problem['pointer']}: {problem['message']}")
    listed = len(verdict["bad"])
    more = "" if listed == verdict["bad_rows"] else f" (the first {listed} are shown)"
    typer.echo(
        f"{counted(verdict['checked'], 'row')}, {verdict['bad_rows']} bad{more}, {verdict['unlabelled']} unlabelled"
    )


def print_statistics(report: Mapping[str, Any]) -> None:
    counts = ("name", "version", "digest", "rows", "unlabelled", "duplicates", "conflicting", "bytes")
    print_fields(report, counts)
    for side in ("inputs", "outputs"):
        typer.echo("")
        rows = [
            (name, one["present"], ", ".join(one["types"]), _spread(one), _labels(one["values"]))
            for name, one in report[side].items()
        ]
        print_table((side, "present", "types", "min / avg / max", "values"), rows, f"No {side}.")


def _spread(field: Mapping[str, Any]) -> str:
    spread = field["numbers"] or field["lengths"]
    return "-" if spread is None else f"{spread['min']:g} / {spread['avg']:.1f} / {spread['max']:g}"


def _labels(values: Sequence[Mapping[str, Any]] | None) -> str:
    shown = [f"{one['value']} {one['share']:.0%}" for one in (values or ())[:6]]
    return "-" if not shown else ", ".join(shown) + (", …" if len(values or ()) > 6 else "")


def deleted(name: str, versions: Sequence[int], used_by: Iterable[Mapping[str, Any]]) -> str:
    return f"deleted {name} version {', '.join(map(str, versions))}{_shown_by(used_by)}"


def deleted_row(
    name: str, version: int, still_in: Iterable[Mapping[str, Any]], used_by: Iterable[Mapping[str, Any]]
) -> str:
    still = ", ".join(f"{one['name']} version {one['version']}" for one in still_in)
    return f"{name} version {version} is without it; it is still in {still}{_shown_by(used_by)}"


def _shown_by(used_by: Iterable[Mapping[str, Any]]) -> str:
    """A line about the versions that go on showing rows in their prompts; nothing where there are none."""
    versions = ", ".join(f"{one['program']} version {one['version']} ({one['status']})" for one in used_by)
    return f"\nstill shown in the prompts of {versions}" if versions else ""
