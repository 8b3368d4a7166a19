"""`dspex programs`: look at programs and move their versions."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dspex.access.records import CLI, DEFAULT_PROJECT, Author
from dspex.access.rules import check_project
from dspex.evaluations.records import EvaluationFilter
from dspex.interfaces.cli.deploying import (
    SOON,
    ForceOption,
    NameArgument,
    deploy_here,
    roll_back_here,
    say_deployed,
)
from dspex.interfaces.cli.listing import Commands
from dspex.interfaces.cli.output import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    print_json,
    print_table,
)
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.program_output import print_program, print_version
from dspex.interfaces.cli.session import Operation, with_services
from dspex.interfaces.shared import evaluation_presenters, presenters
from dspex.interfaces.shared.services import Services
from dspex.kit import json
from dspex.kit.errors import Invalid
from dspex.programs.records import Program, Version

MOST_EVALUATIONS = 20
VersionOption = Annotated[int | None, typer.Option("--version", "-v", help="A version's number.")]


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(
        cls=Commands, help="Look at programs; deploy, roll back, compare, export and import versions."
    )
    app.add_typer(group, name="programs", no_args_is_help=True)

    @group.command("list")
    def list_programs(
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        archived: bool = False,
        as_json: JsonOption = False,
    ) -> None:
        """Programs with their status and deployed version."""

        async def use(services: Services) -> list[Any]:
            page = await services.programs.list(project, include_archived=archived, limit=200, cursor=None)
            return [await _shown(services, one) for one in page.data]

        found = with_services(application, config, use)
        if as_json:
            print_json(found)
            return
        rows = [
            (one["name"], one["status"], one["deployed_version"], one["version"]["model"], one["source"])
            for one in found
        ]
        empty = "No programs. Declare one in dspex.yaml and start `dspex serve`."
        print_table(("name", "status", "version", "model", "source"), rows, empty)

    @group.command()
    def show(
        name: NameArgument,
        version: Annotated[
            int | None, typer.Argument(help="A version's number [all of the program].")
        ] = None,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """One program and its versions, or one version: how it was made, and what evaluations say of it."""
        if version is not None:
            found, evaluations = with_services(
                application, config, lambda services: _version(services, project, name, version)
            )
            if as_json:
                print_json({**found, "evaluations": evaluations})
            else:
                print_version(found, evaluations)
            return

        async def use(services: Services) -> tuple[Any, list[Any]]:
            program = await services.programs.get(project, name)
            page = await services.programs.versions(program, limit=50, cursor=None)
            return await _shown(services, program), [presenters.program_version(one) for one in page.data]

        program, versions = with_services(application, config, use)
        if as_json:
            print_json({**program, "versions": versions})
        else:
            print_program(program, versions)

    @group.command()
    def initialize(
        name: NameArgument,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
    ) -> None:
        """Compile a version so that it can run."""

        async def use(services: Services) -> Version:
            author = Author(check_project(project), CLI)
            async with services.audit.operation(author, "program.initialize", name, version=version) as told:
                program, chosen = await _chosen(services, project, name, version)
                told |= {
                    "version": chosen.number,
                    "was": chosen.status,
                    "deployed": await services.programs.number_deployed(program),
                }
                (after,) = await services.programs.initialize([chosen])
                return after

        after = with_services(application, config, use)
        _check_executable(name, after)
        typer.echo(f"{name} version {after.number} is {after.status} ({after.executor})")

    @group.command()
    def deploy(
        name: NameArgument,
        version: VersionOption = None,
        force: ForceOption = False,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
    ) -> None:
        """Let a version answer: the newest, or the one given."""
        say_deployed(deploy_here(application, config, project, name, version, None, force=force))

    @group.command()
    def rollback(
        name: NameArgument, project: ProjectOption = DEFAULT_PROJECT, config: ConfigOption = None
    ) -> None:
        """Let the version answer that did before the present one."""
        answering = roll_back_here(application, config, project, name)
        typer.echo(f"{name} answers with version {answering.number}{SOON}")

    @group.command()
    def archive(
        name: NameArgument, project: ProjectOption = DEFAULT_PROJECT, config: ConfigOption = None
    ) -> None:
        """Take a program out of service. Its versions and executions stay."""

        async def use(services: Services) -> None:
            await services.programs.archive(await services.programs.get(project, name))

        with_services(application, config, use, Operation("program.archive", name, project))
        typer.echo(f"{name} is archived")

    @group.command()
    def diff(
        name: NameArgument,
        before: int,
        after: int,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
    ) -> None:
        """What differs between two versions, as JSON."""

        async def use(services: Services) -> Any:
            program = await services.programs.get(project, name)
            old = await services.programs.version_numbered(program, before)
            new = await services.programs.version_numbered(program, after)
            return presenters.difference(name, before, after, await services.programs.compare(old, new))

        print_json(with_services(application, config, use))

    @group.command("export")
    def export(
        name: NameArgument,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="A file; else standard output.")
        ] = None,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
    ) -> None:
        """Write a version in DSPy's own format, for `module.load("file.json")`."""

        async def use(services: Services) -> dict[str, Any]:
            program = await services.programs.get(project, name)
            chosen = (
                await services.programs.current(program)
                if version is None
                else await services.programs.version_numbered(program, version)
            )
            return await services.programs.saved_state(chosen)

        saved = with_services(
            application, config, use, Operation("program.export", name, project, {"version": version})
        )
        if output is None:
            print_json(saved)
        else:
            output.write_bytes(json.dumps(saved) + b"\n")
            typer.echo(f"wrote {output}")

    @group.command("import")
    def import_(
        name: NameArgument,
        file: Annotated[
            Path, typer.Argument(help="What `module.save` of DSPy wrote.", exists=True, dir_okay=False)
        ],
        deploy: Annotated[bool, typer.Option("--deploy", help="Let it answer at once.")] = False,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
    ) -> None:
        """Make a version of a program that DSPy saved."""
        saved = _read(file)

        async def use(services: Services) -> tuple[Version, list[str]]:
            program = await services.programs.get(project, name)
            base = await services.programs.current(program)
            version, notes = await services.programs.import_state(program, saved, base=base)
            if deploy:
                await services.programs.deploy(program, version)
            return version, notes

        version, notes = with_services(
            application, config, use, Operation("program.import", name, project, {"deploy": deploy})
        )
        for note in notes:
            typer.echo(f"note: {note}")
        typer.echo(f"{name} has version {version.number}" + (", which answers now" if deploy else ""))

    @group.command()
    def stats(
        name: NameArgument,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
    ) -> None:
        """Executions, success, durations, tokens and cost, as JSON."""

        async def use(services: Services) -> Any:
            await services.programs.get(project, name)
            found = await services.executions.statistics(
                project, name, version=version, since=None, until=None
            )
            return presenters.statistics(name, version, found)

        print_json(with_services(application, config, use))


def _check_executable(name: str, version: Version) -> None:
    if version.error is not None:
        raise Invalid(f"Version {version.number} of {name!r} can't run: {version.error}", code="not_native")


def _read(file: Path) -> dict[str, Any]:
    try:
        saved = json.loads(file.read_bytes())
    except ValueError as error:
        raise Invalid(f"{file} is not JSON: {error}", code="not_json") from None
    if not isinstance(saved, dict):
        raise Invalid(f"{file} is not what DSPy's `module.save` writes: no JSON object.", code="bad_state")
    return saved


async def _version(
    services: Services, project: str, name: str, number: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """With its newest evaluations that completed."""
    program = await services.programs.get(project, name)
    version = await services.programs.version_numbered(program, number)
    where = EvaluationFilter(program=name, status="completed", version=number)
    page = await services.evaluations.list(project, where, limit=MOST_EVALUATIONS, cursor=None)
    shown: dict[str, Any] = {"program": name, **presenters.program_version(version)}
    return shown, [evaluation_presenters.evaluation(one) for one in page.data]


async def _shown(services: Services, program: Program) -> Any:
    statuses = await services.programs.statuses(program.project, [program])
    return presenters.program(program, statuses[program.id], await services.programs.current(program))


async def _chosen(services: Services, project: str, name: str, number: int | None) -> tuple[Program, Version]:
    program = await services.programs.get(project, name)
    if number is None:
        return program, await services.programs.newest(program)
    return program, await services.programs.version_numbered(program, number)
