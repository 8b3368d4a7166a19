"""`dspex batch`: one program, many inputs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dspex.access.records import DEFAULT_PROJECT
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
from dspex.interfaces.cli.remote import NodeOption, Remote, named_node, segment
from dspex.interfaces.cli.session import Operation, here_or_there, read_here_or_there
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
        url: Annotated[
            str | None,
            typer.Option(
                "--url", help="A running node to run them [DSPEX_URL; without it this command does]."
            ),
        ] = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Run a program for each line of a file, here or on a running node (--url or DSPEX_URL).

        Run again with the same output it goes on where it was, and does nothing when all is there. Exits with 1 when
        an item failed.
        """
        node = named_node(url, project)
        try:
            if node is None:
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
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """The newest batches."""

        async def here(services: Services) -> list[dict[str, Any]]:
            page = await services.jobs.list(project, JobFilter(kind="batch"), limit=limit, cursor=None)
            return [job_presenters.batch(one) for one in page.data]

        def there(node: Remote) -> list[dict[str, Any]]:
            return node.listed("/v1/batches", limit)

        found = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(found)
            return
        print_table(COLUMNS, [[one[name] for name in COLUMNS] for one in found], NONE)

    @group.command()
    def get(
        batch_id: BatchArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Where a batch stands: how many of its items are done, and how many failed."""

        async def here(services: Services) -> dict[str, Any]:
            return job_presenters.batch(await services.batches.get(project, batch_id))

        def there(node: Remote) -> dict[str, Any]:
            return node.get(_path(batch_id))

        _print(read_here_or_there(application, config, named_node(url, project), here, there), as_json)

    @group.command()
    def cancel(
        batch_id: BatchArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """End a batch; what is done stays."""

        async def here(services: Services) -> dict[str, Any]:
            return job_presenters.batch(await services.batches.cancel(project, batch_id))

        def there(node: Remote) -> dict[str, Any]:
            return node.post(f"{_path(batch_id)}/cancel", {})

        operation = Operation("batch.cancel", batch_id, project)
        cancelled = here_or_there(application, config, named_node(url, project), here, there, operation)
        _print(cancelled, as_json)


def _path(batch_id: str) -> str:
    return f"/v1/batches/{segment(batch_id)}"


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
