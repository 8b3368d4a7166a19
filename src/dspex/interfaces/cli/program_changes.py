"""`dspex programs`: the commands that change programs, and those that move versions to and from DSPy."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dspex.access.records import CLI, DEFAULT_PROJECT, Author
from dspex.access.rules import check_project
from dspex.interfaces.cli.deploying import (
    SOON,
    ForceOption,
    NameArgument,
    deployed_version,
    rolled_back,
    say_deployed,
)
from dspex.interfaces.cli.output import ConfigOption, ProjectOption, print_json
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.program_here import known_program
from dspex.interfaces.cli.remote import LONG_S, NodeOption, Remote, named_node, segment
from dspex.interfaces.cli.session import Operation, here_or_there
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit import json
from dspex.kit.errors import Invalid

VersionOption = Annotated[int | None, typer.Option("--version", "-v", help="A version's number.")]


def add_to(group: typer.Typer, application: Application) -> None:
    @group.command()
    def initialize(
        name: NameArgument,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
    ) -> None:
        """Compile a version so that it can run."""

        async def here(services: Services) -> Any:
            author = Author(check_project(project), CLI)
            async with services.audit.operation(author, "program.initialize", name, version=version) as told:
                program = await known_program(services, project, name)
                chosen = (
                    await services.programs.newest(program)
                    if version is None
                    else await services.programs.version_numbered(program, version)
                )
                told |= {
                    "version": chosen.number,
                    "was": chosen.status,
                    "deployed": await services.programs.number_deployed(program),
                }
                (after,) = await services.programs.initialize([chosen])
                return presenters.program_version(after)

        def there(node: Remote) -> Any:
            body = {} if version is None else {"version": version}
            return node.post(f"{_path(name)}/initialize", body, within_s=LONG_S)

        after = here_or_there(application, config, named_node(url, project), here, there)
        if after["error"] is not None:
            raise Invalid(
                f"Version {after['version']} of {name!r} can't run: {after['error']}", code="not_native"
            )
        typer.echo(f"{name} version {after['version']} is {after['status']} ({after['executor']})")

    @group.command()
    def deploy(
        name: NameArgument,
        version: VersionOption = None,
        force: ForceOption = False,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
    ) -> None:
        """Let a version answer: the newest, or the one given."""
        done = deployed_version(application, config, url, project, name, version, None, force=force)
        say_deployed(done)

    @group.command()
    def rollback(
        name: NameArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
    ) -> None:
        """Let the version answer that did before the present one."""
        back = rolled_back(application, config, url, project, name)
        typer.echo(f"{name} answers with version {back}{SOON}")

    @group.command()
    def archive(
        name: NameArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
    ) -> None:
        """Take a program out of service. Its versions and executions stay."""

        async def here(services: Services) -> None:
            await services.programs.archive(await known_program(services, project, name))

        def there(node: Remote) -> None:
            node.post(f"{_path(name)}/archive", {})

        operation = Operation("program.archive", name, project)
        here_or_there(application, config, named_node(url, project), here, there, operation)
        typer.echo(f"{name} is archived")

    _add_transfers(group, application)


def _add_transfers(group: typer.Typer, application: Application) -> None:
    @group.command("export")
    def export(
        name: NameArgument,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="A file; else standard output.")
        ] = None,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
    ) -> None:
        """Write a version in DSPy's own format, for `module.load("file.json")`."""

        async def here(services: Services) -> dict[str, Any]:
            program = await known_program(services, project, name)
            chosen = (
                await services.programs.current(program)
                if version is None
                else await services.programs.version_numbered(program, version)
            )
            return await services.programs.saved_state(chosen)

        def there(node: Remote) -> dict[str, Any]:
            # As it is: what is called a time in it is none of ours.
            which = "" if version is None else f"?version={version}"
            return node.request("GET", f"{_path(name)}/export{which}")

        operation = Operation("program.export", name, project, {"version": version})
        saved = here_or_there(application, config, named_node(url, project), here, there, operation)
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
        url: NodeOption = None,
        config: ConfigOption = None,
    ) -> None:
        """Make a version of a program that DSPy saved."""
        saved = _read(file)

        async def here(services: Services) -> tuple[int, list[str]]:
            program = await known_program(services, project, name)
            base = await services.programs.current(program)
            version, notes = await services.programs.import_state(program, saved, base=base)
            if deploy:
                await services.programs.deploy(program, version)
            return version.number, notes

        def there(node: Remote) -> tuple[int, list[str]]:
            which = "?deploy=true" if deploy else ""
            made = node.post(f"{_path(name)}/import{which}", saved, within_s=LONG_S)
            return made["version"], made["notes"]

        operation = Operation("program.import", name, project, {"deploy": deploy})
        version, notes = here_or_there(application, config, named_node(url, project), here, there, operation)
        for note in notes:
            typer.echo(f"note: {note}")
        typer.echo(f"{name} has version {version}" + (", which answers now" if deploy else ""))


def _path(name: str) -> str:
    return f"/v1/programs/{segment(name)}"


def _read(file: Path) -> dict[str, Any]:
    try:
        saved = json.loads(file.read_bytes())
    except ValueError as error:
        raise Invalid(f"{file} is not JSON: {error}", code="not_json") from None
    if not isinstance(saved, dict):
        raise Invalid(f"{file} is not what DSPy's `module.save` writes: no JSON object.", code="bad_state")
    return saved
