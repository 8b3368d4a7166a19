"""`dspex audit`: who did what sensitive thing."""

from typing import Annotated, Any

import typer

from dspex.access.records import DEFAULT_PROJECT, AuditFilter
from dspex.interfaces.cli.output import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    print_json,
    print_table,
)
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.reading import instant
from dspex.interfaces.cli.remote import NodeOption, Remote, named_node
from dspex.interfaces.cli.session import read_here_or_there
from dspex.interfaces.shared import operation_presenters
from dspex.interfaces.shared.services import Services
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
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Sensitive operations, newest first: who, what, how it ended.

        Those of the configuration's database, or of a node with --url or DSPEX_URL.
        """
        where = AuditFilter(action, actor, instant("--since", since), instant("--until", until))

        async def here(services: Services) -> list[Any]:
            page = await services.audit.list(project, where, limit=limit, cursor=None)
            return [operation_presenters.audit_line(one) for one in page.data]

        def there(node: Remote) -> list[Any]:
            return node.listed("/v1/audit", limit, **asdict(where))

        found = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(found)
            return
        columns = ("at", "actor", "action", "target", "outcome", "details")
        print_table(columns, [[one[name] for name in columns] for one in found], "Nothing yet.")
