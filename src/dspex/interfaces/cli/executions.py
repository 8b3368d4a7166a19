"""`dspex executions`: what ran."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from dspex.executions.records import SORTS, Execution, ExecutionFilter
from dspex.executions.trace import trace
from dspex.interfaces.cli.output import (
    ConfigOption,
    JsonOption,
    print_fields,
    print_json,
    print_table,
    print_text,
)
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.session import PROJECT, with_services
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid, Missing
from dspex.kit.paging import Page

STATUSES = ("pending", "running", "completed", "failed", "cancelled")


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(help="Look at executions.")
    app.add_typer(group, name="executions", no_args_is_help=True)

    @group.command("list")
    def list_executions(
        program: Annotated[str | None, typer.Option(help='A program\'s name, or "adhoc".')] = None,
        status: Annotated[str | None, typer.Option(help=", ".join(STATUSES))] = None,
        session: Annotated[str | None, typer.Option(help="A session id.")] = None,
        since: Annotated[str | None, typer.Option(help="An ISO time, UTC without an offset.")] = None,
        sort: Annotated[str, typer.Option(help=", ".join(SORTS))] = "-created_at",
        limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """The newest executions, or those that match."""
        _one_of("--status", status, STATUSES)
        _one_of("--sort", sort, SORTS)
        where = ExecutionFilter(program=program, status=status, session_id=session, since=_instant(since))  # type: ignore[arg-type]

        async def use(services: Services) -> Page[Execution]:
            return await services.executions.list(PROJECT, where, sort=sort, limit=limit, cursor=None)

        found = with_services(application, config, use).data
        if as_json:
            print_json([presenters.execution(one) for one in found])
            return
        rows = [
            (one.id, one.created_at, one.program, one.version, one.status, one.duration_ms, one.cost_usd)
            for one in found
        ]
        columns = ("id", "created", "program", "version", "status", "ms", "usd")
        print_table(columns, rows, "No executions.")

    @group.command()
    def show(
        execution_id: Annotated[str, typer.Argument(help="An execution's id.")],
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """One execution with every call to a model: what was sent, what came back."""

        async def use(services: Services) -> Any:
            found = await services.executions.get(PROJECT, execution_id)
            if found is None:
                raise Missing(f"There is no execution {execution_id!r}.", code="execution_missing")
            return presenters.traced_execution(found, await trace(found, services.compiled))

        found = with_services(application, config, use)
        if as_json:
            print_json(found)
            return
        names = ("id", "program", "version", "status", "created_at", "duration_ms", "overhead_ms", "model")
        print_fields(found, (*names, "cost_usd", "usage", "inputs", "outputs", "error", "violations"))
        for number, call in enumerate(found["trace"], 1):
            typer.echo(
                f"\n--- call {number}: {call['adapter']} to {call['provider_model']}, {call['latency_ms']} ms"
            )
            for message in call["messages"] or ():
                print_text(f"[{message['role']}]\n{message['content']}")
            print_text(f"[reply]\n{call['reply'] if call['error'] is None else call['error']['message']}")


def _one_of(option: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise Invalid(f"{option} is one of {', '.join(allowed)}, not {value!r}.", code="bad_argument")


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(
            f"--since {text!r} is no ISO time, such as 2026-01-31T12:00.", code="bad_argument"
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
