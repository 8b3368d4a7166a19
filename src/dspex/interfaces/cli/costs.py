"""`dspex costs` and `dspex budgets`: what was spent, and what may be."""

from typing import Annotated, Any

import typer

from dspex.access.records import DEFAULT_PROJECT
from dspex.executions.records import COST_GROUPS, CostGroup
from dspex.gateway.budgeting import periods_at
from dspex.interfaces.cli.output import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    cell_text,
    print_json,
    print_table,
)
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.reading import instant, one_of
from dspex.interfaces.cli.remote import NodeOption, Remote, named_node
from dspex.interfaces.cli.session import read_here_or_there
from dspex.interfaces.shared import operation_presenters
from dspex.interfaces.shared.services import Services

_NUMBERS = ("executions", "input_tokens", "output_tokens", "cost_usd", "saved_usd", "unpriced")


def add_to(app: typer.Typer, application: Application) -> None:
    @app.command()
    def costs(
        since: Annotated[str | None, typer.Option(help="An ISO time, UTC without an offset.")] = None,
        until: Annotated[str | None, typer.Option(help="The same; not included.")] = None,
        program: Annotated[str | None, typer.Option(help="One program's alone.")] = None,
        by: Annotated[
            list[str] | None, typer.Option(help=f"{', '.join(COST_GROUPS)}; may be repeated.")
        ] = None,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """What executions cost, by day, program, model and key, or by some of these."""
        for name in by or ():
            one_of("--by", name, COST_GROUPS)
        groups: list[CostGroup] = [name for name in COST_GROUPS if name in (by or COST_GROUPS)]
        start, end = instant("--since", since), instant("--until", until)

        async def here(services: Services) -> Any:
            return operation_presenters.costs(
                await services.executions.costs(project, by=groups, program=program, since=start, until=end)
            )

        def there(node: Remote) -> Any:
            return node.get("/costs", group_by=",".join(groups), program=program, since=start, until=end)

        document = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(document)
            return
        names = (*groups, *_NUMBERS)
        rows = [[cell_text(name, line[name]) for name in names] for line in document["data"]]
        if rows:
            rows.append(
                [
                    "total",
                    *[""] * (len(groups) - 1),
                    *(cell_text(name, document["total"][name]) for name in _NUMBERS),
                ]
            )
        columns = ("executions", "input", "output", "usd", "saved", "unpriced")
        print_table((*groups, *columns), rows, "No executions.")

    @app.command()
    def budgets(
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Budgets in their present period: limit, spent, reserved by nodes, left."""

        async def here(services: Services) -> list[Any]:
            balances = await services.budgets.balances(project, periods_at(services.clock.now()))
            return [operation_presenters.budget(one) for one in balances]

        def there(node: Remote) -> list[Any]:
            return node.listed("/v1/budgets")

        found = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(found)
            return
        names = ("scope", "name", "period", "limit_usd", "spent_usd", "reserved_usd", "left_usd")
        columns = [name.removesuffix("_usd") for name in names]
        rows = [[cell_text(name, one[name]) for name in names] for one in found]
        print_table(columns, rows, "No budget has been used in its present period.")
