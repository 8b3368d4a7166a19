"""`dspex audit`: who did what sensitive thing."""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from dspex.access.records import DEFAULT_PROJECT, AuditEntry, AuditFilter
from dspex.access.rules import check_project
from dspex.interfaces.cli.output import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    print_json,
    print_table,
)
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.reading import instant
from dspex.interfaces.cli.remote import Remote, UrlOption
from dspex.interfaces.cli.session import with_services
from dspex.interfaces.shared import operation_presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.paging import Page
from dspex.kit.records import asdict


def add_to(app: typer.Typer, application: Application) -> None:
    @app.command()
    def audit(
        action: Annotated[str | None, typer.Option(help="Such as key.create.")] = None,
        actor: Annotated[str | None, typer.Option(help="A key's id, local, cli, file or unknown.")] = None,
        since: Annotated[str | None, typer.Option(help="An ISO time, UTC without an offset.")] = None,
        until: Annotated[str | None, typer.Option(help="An ISO time, UTC without an offset.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
        project: ProjectOption = DEFAULT_PROJECT,
        url: UrlOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Sensitive operations, newest first: who, what, how it ended.

        Those of the configuration's database, or of a node with --url or DSPEX_URL.
        """
        check_project(project)
        where = AuditFilter(action, actor, instant("--since", since), instant("--until", until))

        async def use(services: Services) -> Page[AuditEntry]:
            return await services.audit.list(project, where, limit=limit, cursor=None)

        address = url or os.environ.get("DSPEX_URL")
        if address is None:
            found: list[Any] = [
                operation_presenters.audit_line(one) for one in with_services(application, config, use).data
            ]
        else:
            found = _there(Remote(address, None if project == DEFAULT_PROJECT else project), where, limit)
        if as_json:
            print_json(found)
            return
        columns = ("at", "actor", "action", "target", "outcome", "details")
        print_table(columns, [[one[name] for name in columns] for one in found], "Nothing yet.")


def _there(node: Remote, where: AuditFilter, limit: int) -> list[Mapping[str, Any]]:
    query = {name: value for name, value in asdict(where).items() if value is not None} | {"limit": limit}
    query |= {name: query[name].isoformat() for name in ("since", "until") if name in query}
    page = node.request("GET", f"/v1/audit?{urlencode(query)}")["data"]
    return [{**one, "at": datetime.fromisoformat(one["at"])} for one in page]
