"""`dspex programs`: look at programs; its other commands are in `program_changes`."""

from typing import Annotated, Any

import typer

from dspex.access.records import DEFAULT_PROJECT
from dspex.evaluations.records import EvaluationFilter
from dspex.interfaces.cli import program_changes
from dspex.interfaces.cli.deploying import NameArgument
from dspex.interfaces.cli.listing import Commands
from dspex.interfaces.cli.output import ConfigOption, JsonOption, ProjectOption, print_json, print_table
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.program_here import declared_names, known_program
from dspex.interfaces.cli.program_output import print_program, print_version
from dspex.interfaces.cli.remote import NodeOption, Remote, named_node, segment
from dspex.interfaces.cli.session import read_here_or_there
from dspex.interfaces.shared import evaluation_presenters, presenters
from dspex.interfaces.shared.services import Services
from dspex.programs.records import Program

MOST_EVALUATIONS = 20
MOST_VERSIONS = 50
MOST_PROGRAMS = 200
VersionOption = Annotated[int | None, typer.Option("--version", "-v", help="A version's number.")]


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(
        cls=Commands, help="Look at programs; deploy, roll back, compare, export and import versions."
    )
    app.add_typer(group, name="programs", no_args_is_help=True)

    @group.command("list")
    def list_programs(
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        archived: bool = False,
        as_json: JsonOption = False,
    ) -> None:
        """Programs with their status and deployed version."""
        declared: list[str] = []

        async def here(services: Services) -> list[Any]:
            declared.extend(declared_names(services, project))
            page = await services.programs.list(
                project, include_archived=archived, limit=MOST_PROGRAMS, cursor=None
            )
            return [await _shown(services, one) for one in page.data]

        def there(node: Remote) -> list[Any]:
            return node.listed("/v1/programs", MOST_PROGRAMS, include_archived=archived)

        found = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(found)
            return
        rows = [
            (one["name"], one["status"], one["deployed_version"], one["version"]["model"], one["source"])
            for one in found
        ]
        empty = "No programs. Declare one in dspex.yaml and start `dspex serve`."
        if declared:
            named = ", ".join(declared)
            empty = f"No programs. What the file declares comes with the next `dspex serve`: {named}."
        print_table(("name", "status", "version", "model", "source"), rows, empty)

    @group.command()
    def show(
        name: NameArgument,
        version: Annotated[
            int | None, typer.Argument(help="A version's number [all of the program].")
        ] = None,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """One program and its versions, or one version: how it was made, and what evaluations say of it."""
        node = named_node(url, project)
        if version is not None:
            found, evaluations = read_here_or_there(
                application,
                config,
                node,
                lambda services: _version(services, project, name, version),
                lambda there: _version_there(there, name, version),
            )
            if as_json:
                print_json({**found, "evaluations": evaluations})
            else:
                print_version(found, evaluations)
            return

        async def here(services: Services) -> tuple[Any, list[Any]]:
            program = await known_program(services, project, name)
            page = await services.programs.versions(program, limit=MOST_VERSIONS, cursor=None)
            return await _shown(services, program), [presenters.program_version(one) for one in page.data]

        def there(node: Remote) -> tuple[Any, list[Any]]:
            path = _path(name)
            return node.get(path), node.listed(f"{path}/versions", MOST_VERSIONS)

        program, versions = read_here_or_there(application, config, node, here, there)
        if as_json:
            print_json({**program, "versions": versions})
        else:
            print_program(program, versions)

    @group.command()
    def diff(
        name: NameArgument,
        before: int,
        after: int,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
    ) -> None:
        """What differs between two versions, as JSON."""

        async def here(services: Services) -> Any:
            program = await known_program(services, project, name)
            old = await services.programs.version_numbered(program, before)
            new = await services.programs.version_numbered(program, after)
            return presenters.difference(name, before, after, await services.programs.compare(old, new))

        def there(node: Remote) -> Any:
            return node.get(f"{_path(name)}/diff", **{"from": before, "to": after})

        print_json(read_here_or_there(application, config, named_node(url, project), here, there))

    @group.command()
    def stats(
        name: NameArgument,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
    ) -> None:
        """Executions, success, durations, tokens and cost, as JSON."""

        async def here(services: Services) -> Any:
            await known_program(services, project, name)
            found = await services.executions.statistics(
                project, name, version=version, since=None, until=None
            )
            return presenters.statistics(name, version, found)

        def there(node: Remote) -> Any:
            return node.get(f"{_path(name)}/stats", version=version)

        print_json(read_here_or_there(application, config, named_node(url, project), here, there))

    program_changes.add_to(group, application)


def _path(name: str) -> str:
    return f"/v1/programs/{segment(name)}"


async def _version(
    services: Services, project: str, name: str, number: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """With its newest evaluations that completed."""
    program = await known_program(services, project, name)
    version = await services.programs.version_numbered(program, number)
    where = EvaluationFilter(program=name, status="completed", version=number)
    page = await services.evaluations.list(project, where, limit=MOST_EVALUATIONS, cursor=None)
    shown: dict[str, Any] = {"program": name, **presenters.program_version(version)}
    return shown, [evaluation_presenters.evaluation(one) for one in page.data]


def _version_there(node: Remote, name: str, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """As `_version`."""
    version = node.get(f"{_path(name)}/versions/{number}")
    evaluations = node.listed(
        "/v1/evaluations", MOST_EVALUATIONS, program=name, version=number, status="completed"
    )
    return {"program": name, **version}, evaluations


async def _shown(services: Services, program: Program) -> Any:
    statuses = await services.programs.statuses(program.project, [program])
    return presenters.program(program, statuses[program.id], await services.programs.current(program))
