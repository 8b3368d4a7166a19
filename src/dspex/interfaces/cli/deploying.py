"""`dspex deploy` and `dspex rollback`: which version of a program answers."""

from typing import Annotated

import typer

from dspex.access.records import DEFAULT_PROJECT
from dspex.interfaces.cli.output import ConfigOption, JsonOption, ProjectOption, print_json
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.programs import SOON, NameArgument
from dspex.interfaces.cli.session import Operation, with_services
from dspex.interfaces.shared.gates import deployed
from dspex.interfaces.shared.services import Services
from dspex.programs.records import Version

ForceOption = Annotated[bool, typer.Option("--force", help="Pass by the program's gates; it is on record.")]
EvaluationOption = Annotated[
    str | None, typer.Option(help="An evaluation of the version, for the gates to look at.")
]


def add_to(app: typer.Typer, application: Application) -> None:
    @app.command()
    def deploy(
        program: NameArgument,
        version: Annotated[int | None, typer.Argument(help="A version [the newest that can run].")] = None,
        force: ForceOption = False,
        evaluation: EvaluationOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Let a version of a program answer, if its gates let it."""
        details = {"version": version, "force": force, "evaluation": evaluation}

        async def use(services: Services) -> Version:
            # As the file has them now, which may be after the last start.
            declared = (
                application.definition(services.settings, program) if project == DEFAULT_PROJECT else None
            )
            gates = None if declared is None else declared[1]
            return await deployed(
                services, project, program, version, evaluation, force=force, declared=gates
            )

        answering = with_services(
            application, config, use, Operation("program.deploy", program, project, details)
        )
        _say(program, answering, as_json)

    @app.command()
    def rollback(
        program: NameArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Let the version answer that did before the present one."""

        async def use(services: Services) -> Version:
            _, back = await services.programs.rollback(await services.programs.get(project, program))
            return back

        done = Operation("program.rollback", program, project)
        _say(program, with_services(application, config, use, done), as_json)


def _say(program: str, version: Version, as_json: bool) -> None:
    if as_json:
        print_json({"program": program, "version": version.number})
    else:
        typer.echo(f"{program} answers with version {version.number}{SOON}")
