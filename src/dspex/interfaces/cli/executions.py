"""`dspex executions`: what ran."""

from typing import Annotated, Any

import typer

from dspex.access.records import DEFAULT_PROJECT
from dspex.executions.errors import ProgramFailed
from dspex.executions.records import SORTS, ExecutionFilter
from dspex.executions.trace import trace
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
from dspex.interfaces.cli.reading import instant, one_of
from dspex.interfaces.cli.remote import NodeOption, Remote, named_node, segment
from dspex.interfaces.cli.session import read_here_or_there
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Missing
from dspex.kit.wording import counted

STATUSES = ("pending", "running", "completed", "failed", "cancelled")

_TRACEBACK = (
    "The traceback is in the log of the node that ran it: the event program_raised with this execution_id."
)


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(cls=Commands, help="Look at executions.")
    app.add_typer(group, name="executions", no_args_is_help=True)

    @group.command("list")
    def list_executions(
        program: Annotated[str | None, typer.Option(help='A program\'s name, or "adhoc".')] = None,
        status: Annotated[str | None, typer.Option(help=", ".join(STATUSES))] = None,
        session: Annotated[str | None, typer.Option(help="A session id.")] = None,
        since: Annotated[str | None, typer.Option(help="An ISO time, UTC without an offset.")] = None,
        sort: Annotated[str, typer.Option(help=", ".join(SORTS))] = "-created_at",
        limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """The newest executions, or those that match."""
        one_of("--status", status, STATUSES)
        one_of("--sort", sort, SORTS)
        given: dict[str, Any] = {"program": program, "status": status, "session_id": session}
        where = ExecutionFilter(**given, since=instant("--since", since))

        async def here(services: Services) -> list[Any]:
            page = await services.executions.list(project, where, sort=sort, limit=limit, cursor=None)
            return [presenters.execution(one) for one in page.data]

        def there(node: Remote) -> list[Any]:
            return node.listed("/v1/executions", limit, **given, since=where.since, sort=sort)

        found = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(found)
            return
        names = ("id", "created_at", "program", "version", "status", "duration_ms", "cost_usd")
        columns = ("id", "created", "program", "version", "status", "ms", "usd")
        print_table(columns, [[one[name] for name in names] for one in found], "No executions.")

    @group.command()
    def show(
        execution_id: Annotated[str, typer.Argument(help="An execution's id.")],
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """One execution with every call to a model: what was sent, what came back."""

        async def here(services: Services) -> Any:
            found = await services.executions.get(project, execution_id)
            if found is None:
                raise Missing(f"There is no execution {execution_id!r}.", code="execution_missing")
            return presenters.traced_execution(found, await trace(found, services.compiled))

        def there(node: Remote) -> Any:
            return node.get(f"/v1/executions/{segment(execution_id)}")

        found = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(found)
            return
        names = ("id", "program", "version", "status", "created_at", "duration_ms", "overhead_ms", "model")
        print_fields(found, (*names, "cost_usd", "usage", "inputs", "outputs", "error", "violations"))
        if (found.get("error") or {}).get("code") == ProgramFailed.default_code:
            print_text(_TRACEBACK)
        for number, call in enumerate(found["trace"], 1):
            what = call["adapter"] or call["dialect"]
            typer.echo(f"\n--- call {number}: {what} to {call['provider_model']}, {call['latency_ms']} ms")
            if "texts" in call and call["error"] is None:
                kept = ", all of them kept before" if call["cache"] == "hit" else ""
                print_text(f"[embedded]\n{counted(call['texts'], 'text')}{kept}")
                continue
            for message in call["messages"] or ():
                print_text(f"[{message['role']}]\n{message['content']}")
            print_text(f"[reply]\n{call['reply'] if call['error'] is None else call['error']['message']}")
