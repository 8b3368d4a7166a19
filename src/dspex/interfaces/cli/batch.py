"""`dspex batch`: one program, many inputs."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from dspex.access.records import DEFAULT_PROJECT
from dspex.access.rules import check_project
from dspex.interfaces.cli import batch_here, batch_there
from dspex.interfaces.cli.batch_output import Summary
from dspex.interfaces.cli.listing import Commands
from dspex.interfaces.cli.output import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    print_fields,
    print_json,
    print_table,
    print_text,
)
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.remote import Remote, UrlOption
from dspex.interfaces.cli.session import Operation, with_services
from dspex.interfaces.shared import job_presenters
from dspex.interfaces.shared.services import Services
from dspex.jobs.records import JobFilter

BatchArgument = Annotated[str, typer.Argument(help="A batch's id.")]
COLUMNS = ("id", "created_at", "program", "status", "items", "completed", "failed")
STOPPED = 130
NONE = (
    "No batches. Nodes take them, from POST /v1/batches or dspex batch run --url; without it the command runs the "
    "items itself, and what came of them is in its output alone."
)


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(cls=Commands, help="Run a program for many inputs; look at batches.")
    app.add_typer(group, name="batch", no_args_is_help=True)

    @group.command()
    def run(
        program: Annotated[str, typer.Argument(help="A program's name.")],
        inputs: Annotated[Path, typer.Argument(help="JSON lines: an object of inputs each.")],
        output: Annotated[Path, typer.Option("--output", "-o", help="Where the results go, as JSON lines.")],
        version: Annotated[int | None, typer.Option(min=1, help="A version [the deployed one].")] = None,
        concurrency: Annotated[int | None, typer.Option(min=1, max=1000, help="Items at once.")] = None,
        retry_failed: Annotated[
            bool, typer.Option("--retry-failed", help="Run the items again that failed before.")
        ] = False,
        project: ProjectOption = DEFAULT_PROJECT,
        url: UrlOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Run a program for each line of a file, here or on a running node (--url or DSPEX_URL).

        Run again with the same output it goes on where it was, and does nothing when all is there. Exits with 1 when
        an item failed.
        """
        address = url or os.environ.get("DSPEX_URL")
        check_project(project)
        try:
            if address is None:
                summary = batch_here.run(
                    application,
                    config,
                    program,
                    inputs,
                    output,
                    version,
                    concurrency,
                    project,
                    retry_failed=retry_failed,
                )
            else:
                node = Remote(address, None if project == DEFAULT_PROJECT else project)
                summary = batch_there.run(
                    node, program, inputs, output, version, concurrency, retry_failed=retry_failed
                )
        except KeyboardInterrupt:
            typer.echo("dspex: stopped; run the same command again to go on.", err=True)
            raise typer.Exit(STOPPED) from None
        _tell(summary, output, as_json)

    @group.command("list")
    def list_batches(
        limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """The newest batches."""

        async def use(services: Services) -> list[dict[str, Any]]:
            page = await services.jobs.list(project, JobFilter(kind="batch"), limit=limit, cursor=None)
            return [job_presenters.batch(one) for one in page.data]

        found = with_services(application, config, use)
        if as_json:
            print_json(found)
            return
        print_table(COLUMNS, [[one[name] for name in COLUMNS] for one in found], NONE)

    @group.command()
    def get(
        batch_id: BatchArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Where a batch stands: how many of its items are done, and how many failed."""
        found = with_services(application, config, lambda services: services.batches.get(project, batch_id))
        _print(job_presenters.batch(found), as_json)

    @group.command()
    def cancel(
        batch_id: BatchArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """End a batch; what is done stays."""
        operation = Operation("batch.cancel", batch_id, project)
        cancelled = with_services(
            application, config, lambda services: services.batches.cancel(project, batch_id), operation
        )
        _print(job_presenters.batch(cancelled), as_json)


def _print(batch: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(batch)
    else:
        print_fields(batch, (*COLUMNS, "version", "error", "started_at", "completed_at"))


def _tell(summary: Summary, output: Path, as_json: bool) -> None:
    if as_json:
        print_json({**summary.to_json(), "output": str(output)})
    else:
        nothing = "nothing was left to do: " if summary.nothing_left else ""
        typer.echo(
            f"{nothing}{summary.completed} completed, {summary.failed} failed; the results are in {output}"
        )
        if (reason := summary.reason()) is not None:
            print_text(f"all failed for one reason, the first: {reason}")
    if summary.failed:
        raise typer.Exit(1)
