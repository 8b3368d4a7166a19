"""`dspex audit`: who did what sensitive thing."""

from typing import Annotated

import typer

from dspex.access.records import DEFAULT_PROJECT, AuditEntry, AuditFilter
from dspex.interfaces.cli.output import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    print_json,
    print_table,
)
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.reading import instant
from dspex.interfaces.cli.session import with_services
from dspex.interfaces.shared import operation_presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.paging import Page


def add_to(app: typer.Typer, application: Application) -> None:
    @app.command()
    def audit(
        action: Annotated[str | None, typer.Option(help="Such as key.create.")] = None,
        actor: Annotated[str | None, typer.Option(help="A key's id, local, cli, file or unknown.")] = None,
        since: Annotated[str | None, typer.Option(help="An ISO time, UTC without an offset.")] = None,
        until: Annotated[str | None, typer.Option(help="An ISO time, UTC without an offset.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Sensitive operations, newest first: who, what, how it ended."""
        where = AuditFilter(action, actor, instant("--since", since), instant("--until", until))

        async def use(services: Services) -> Page[AuditEntry]:
            return await services.audit.list(project, where, limit=limit, cursor=None)

        found = with_services(application, config, use).data
        if as_json:
            print_json([operation_presenters.audit_line(one) for one in found])
            return
        rows = [(one.at, one.actor, one.action, one.target, one.outcome, one.details) for one in found]
        print_table(("at", "actor", "action", "target", "outcome", "details"), rows, "Nothing yet.")
