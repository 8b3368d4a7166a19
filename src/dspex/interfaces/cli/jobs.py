"""`dspex jobs` and `dspex queues`: what is done in the background."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dspex.access.records import DEFAULT_PROJECT
from dspex.interfaces.cli.listing import Commands
from dspex.interfaces.cli.output import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    print_fields,
    print_json,
    print_table,
)
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.reading import one_of
from dspex.interfaces.cli.remote import NodeOption, Remote, named_node, segment
from dspex.interfaces.cli.session import Operation, here_or_there, read_here_or_there
from dspex.interfaces.shared import job_presenters
from dspex.interfaces.shared.services import Services
from dspex.jobs.records import STATES, JobFilter

JobArgument = Annotated[
    str, typer.Argument(help="A job's id; that of a background execution, batch or evaluation is theirs.")
]
Change = Literal["cancel", "pause", "resume", "retry"]
QueueArgument = Annotated[str, typer.Argument(help="A queue's name.")]
SHOWN = (
    "id",
    "kind",
    "queue",
    "status",
    "subject",
    "parent",
    "attempts",
    "priority",
    "node",
    "progress",
    "result",
)
TIMES = ("error", "created_at", "due_at", "started_at", "completed_at")


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(cls=Commands, help="Look at jobs; cancel them, run failed ones again.")
    app.add_typer(group, name="jobs", no_args_is_help=True)

    @group.command("list")
    def list_jobs(
        status: Annotated[str | None, typer.Option(help=", ".join(STATES))] = None,
        kind: Annotated[str | None, typer.Option(help="execution, batch, evaluation, webhook.")] = None,
        queue: Annotated[str | None, typer.Option(help="A queue's name.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """The newest jobs, or those that match."""
        one_of("--status", status, STATES)
        where = JobFilter(kind, queue, status)  # type: ignore[arg-type]

        async def here(services: Services) -> list[dict[str, Any]]:
            page = await services.jobs.list(project, where, limit=limit, cursor=None)
            return [job_presenters.job(one) for one in page.data]

        def there(node: Remote) -> list[dict[str, Any]]:
            return node.listed("/v1/jobs", limit, kind=kind, queue=queue, status=status)

        found = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(found)
            return
        columns = ("id", "created_at", "kind", "queue", "status", "subject", "attempts")
        print_table(columns, [[one[name] for name in columns] for one in found], "No jobs.")

    @group.command()
    def get(
        job_id: JobArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """One job: where it stands, what came of it, why it failed."""

        async def here(services: Services) -> dict[str, Any]:
            return job_presenters.job(await services.jobs.get(project, job_id))

        def there(node: Remote) -> dict[str, Any]:
            return node.get(_path(job_id))

        _print(read_here_or_there(application, config, named_node(url, project), here, there), as_json)

    _add_changes(group, application)
    _add_queues(app, application)


def _add_changes(group: typer.Typer, application: Application) -> None:
    def changed(
        change: Change, job_id: str, project: str, url: str | None, config: Path | None, as_json: bool
    ) -> None:
        async def here(services: Services) -> dict[str, Any]:
            changes = {
                "cancel": services.jobs.cancel,
                "pause": services.jobs.pause,
                "resume": services.jobs.resume,
                "retry": services.jobs.retry,
            }
            return job_presenters.job(await changes[change](project, job_id))

        def there(node: Remote) -> dict[str, Any]:
            return node.post(f"{_path(job_id)}/{change}", {})

        operation = Operation(f"job.{change}", job_id, project)
        _print(here_or_there(application, config, named_node(url, project), here, there, operation), as_json)

    @group.command()
    def cancel(
        job_id: JobArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """At once while it waits; one that runs ends within moments."""
        changed("cancel", job_id, project, url, config, as_json)

    @group.command()
    def pause(
        job_id: JobArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Do not begin it before it is resumed; what runs of it is given up within seconds."""
        changed("pause", job_id, project, url, config, as_json)

    @group.command()
    def resume(
        job_id: JobArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Queue a paused job again."""
        changed("resume", job_id, project, url, config, as_json)

    @group.command()
    def retry(
        job_id: JobArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Queue a failed or cancelled job again."""
        changed("retry", job_id, project, url, config, as_json)


def _add_queues(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(cls=Commands, help="Look at the queues of jobs; pause and resume them.")
    app.add_typer(group, name="queues", no_args_is_help=True)

    def shown(
        url: str | None, config: Path | None, as_json: bool, change: str | None = None, queue: str = ""
    ) -> None:
        async def here(services: Services) -> list[dict[str, Any]]:
            if change == "pause":
                await services.jobs.pause_queue(queue)
            elif change == "resume":
                await services.jobs.resume_queue(queue)
            return [job_presenters.queue(one) for one in await services.jobs.queues()]

        def there(node: Remote) -> list[dict[str, Any]]:
            if change is not None:
                node.post(f"/v1/queues/{segment(queue)}/{change}", {})
            return node.listed("/v1/queues")

        audited = None if change is None else Operation(f"queue.{change}", queue, DEFAULT_PROJECT)
        asked = named_node(url, None)
        if audited is None:
            found = read_here_or_there(application, config, asked, here, there)
        else:
            found = here_or_there(application, config, asked, here, there, audited)
        if as_json:
            print_json(found)
            return
        columns = ("name", "limit", "queued", "running", "paused_at")
        print_table(columns, [[one[name] for name in columns] for one in found], "No queues.")

    @group.command("list")
    def list_queues(url: NodeOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """All queues: how many jobs of each a worker runs at once, and how many wait and run."""
        shown(url, config, as_json)

    @group.command()
    def pause(
        queue: QueueArgument, url: NodeOption = None, config: ConfigOption = None, as_json: JsonOption = False
    ) -> None:
        """Begin no job of the queue any more, in all projects; those under way go on."""
        shown(url, config, as_json, "pause", queue)

    @group.command()
    def resume(
        queue: QueueArgument, url: NodeOption = None, config: ConfigOption = None, as_json: JsonOption = False
    ) -> None:
        """Begin the jobs of the queue again."""
        shown(url, config, as_json, "resume", queue)


def _path(job_id: str) -> str:
    return f"/v1/jobs/{segment(job_id)}"


def _print(job: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        print_fields(job, (*SHOWN, *TIMES))
