"""`dspex migrate` and `dspex doctor`: what an operator asks for."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dspex.interfaces.cli.ports import Application
from dspex.kit.records import asdict

_MARKS = {"ok": ("ok  ", "green"), "warning": ("warn", "yellow"), "failed": ("FAIL", "red")}


def add_to(app: typer.Typer, application: Application) -> None:
    @app.command()
    def migrate(
        revision: Annotated[str, typer.Argument(help="head, base, or a revision's id.")] = "head",
        config: Annotated[Path | None, typer.Option("--config", "-c", help="The configuration file.")] = None,
        down: Annotated[bool, typer.Option("--down", help="Go down to it. Deletes what is newer.")] = False,
        check: Annotated[bool, typer.Option("--check", help="Only say; exit 1 when not current.")] = False,
    ) -> None:
        """Bring the database to a revision; `dspex serve` does it by itself for a new one."""
        settings, _ = application.load_settings(config, {})
        if check:
            current, newest = application.revision(settings)
            typer.echo(f"database {current or '(empty)'}, this release {newest}")
            raise typer.Exit(0 if current == newest else 1)
        before, after = application.migrate(settings, revision, down=down)
        same = "nothing to do" if before == after else "done"
        typer.echo(f"{before or '(empty)'} -> {after or '(empty)'}: {same}")

    @app.command()
    def doctor(
        config: Annotated[Path | None, typer.Option("--config", "-c", help="The configuration file.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    ) -> None:
        """Look at everything that could keep this node from serving; exit 1 when something would."""
        findings = application.examine(config)
        if as_json:
            typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        else:
            for finding in findings:
                mark, colour = _MARKS[finding.state]
                detail = finding.detail.replace("\n", "\n      ")
                typer.echo(f"{typer.style(mark, fg=colour)}  {finding.subject}: {detail}")
                if finding.advice:
                    typer.echo(f"      {finding.advice}")
        raise typer.Exit(1 if any(finding.state == "failed" for finding in findings) else 0)
