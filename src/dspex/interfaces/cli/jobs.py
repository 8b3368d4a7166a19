"""`dspex jobs` and `dspex queues`: what is done in the background."""

from collections.abc import Awaitable, Callable
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
from dspex.interfaces.cli.session import Operation, with_services
from dspex.interfaces.shared import job_presenters
from dspex.interfaces.shared.services import Services
from dspex.jobs.records import STATES, Job, JobFilter
from dspex.kit.paging import Page

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
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """The newest jobs, or those that match."""
        one_of("--status", status, STATES)
        where = JobFilter(kind, queue, status)  # type: ignore[arg-type]

        async def use(services: Services) -> Page[Job]:
            return await services.jobs.list(project, where, limit=limit, cursor=None)

        found = [job_presenters.job(one) for one in with_services(application, config, use).data]
        if as_json:
            print_json(found)
            return
        columns = ("id", "created_at", "kind", "queue", "status", "subject", "attempts")
        print_table(columns, [[one[name] for name in columns] for one in found], "No jobs.")

    @group.command()
    def get(
        job_id: JobArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """One job: where it stands, what came of it, why it failed."""
        found = with_services(application, config, lambda services: services.jobs.get(project, job_id))
        _print(found, as_json)

    _add_changes(group, application)
    _add_queues(app, application)


def _add_changes(group: typer.Typer, application: Application) -> None:
    def changed(change: Change, job_id: str, project: str, config: Path | None, as_json: bool) -> None:
        async def use(services: Services) -> Job:
            changes = {
                "cancel": services.jobs.cancel,
                "pause": services.jobs.pause,
                "resume": services.jobs.resume,
                "retry": services.jobs.retry,
            }
            return await changes[change](project, job_id)

        _print(with_services(application, config, use, Operation(f"job.{change}", job_id, project)), as_json)

    @group.command()
    def cancel(
        job_id: JobArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """At once while it waits; one that runs ends within moments."""
        changed("cancel", job_id, project, config, as_json)

    @group.command()
    def pause(
        job_id: JobArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Do not begin it before it is resumed; what runs of it is given up within seconds."""
        changed("pause", job_id, project, config, as_json)

    @group.command()
    def resume(
        job_id: JobArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Queue a paused job again."""
        changed("resume", job_id, project, config, as_json)

    @group.command()
    def retry(
        job_id: JobArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Queue a failed or cancelled job again."""
        changed("retry", job_id, project, config, as_json)


def _add_queues(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(cls=Commands, help="Look at the queues of jobs; pause and resume them.")
    app.add_typer(group, name="queues", no_args_is_help=True)

    def shown(
        config: Path | None,
        as_json: bool,
        change: Callable[[Services], Awaitable[None]] | None = None,
        audited: Operation | None = None,
    ) -> None:
        async def use(services: Services) -> list[dict[str, Any]]:
            if change is not None:
                await change(services)
            return [job_presenters.queue(one) for one in await services.jobs.queues()]

        found = with_services(application, config, use, audited)
        if as_json:
            print_json(found)
            return
        columns = ("name", "limit", "queued", "running", "paused_at")
        print_table(columns, [[one[name] for name in columns] for one in found], "No queues.")

    @group.command("list")
    def list_queues(config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """All queues: how many jobs of each a worker runs at once, and how many wait and run."""
        shown(config, as_json)

    @group.command()
    def pause(queue: QueueArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Begin no job of the queue any more, in all projects; those under way go on."""
        operation = Operation("queue.pause", queue, DEFAULT_PROJECT)
        shown(config, as_json, lambda services: services.jobs.pause_queue(queue), operation)

    @group.command()
    def resume(queue: QueueArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Begin the jobs of the queue again."""
        operation = Operation("queue.resume", queue, DEFAULT_PROJECT)
        shown(config, as_json, lambda services: services.jobs.resume_queue(queue), operation)


def _print(job: Job, as_json: bool) -> None:
    shown = job_presenters.job(job)
    if as_json:
        print_json(shown)
    else:
        print_fields(shown, (*SHOWN, *TIMES))
