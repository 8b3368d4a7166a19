"""`dspex deploy` and `dspex rollback`: which version of a program answers."""

from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace

from dspex.access.records import CLI, DEFAULT_PROJECT, Author
from dspex.access.rules import check_project
from dspex.interfaces.cli.output import ConfigOption, JsonOption, ProjectOption, print_json, score_text
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.session import with_services
from dspex.interfaces.shared.gates import Deployed, deployed
from dspex.interfaces.shared.services import Services
from dspex.kit.records import asdict
from dspex.programs.records import Program, Version

SOON = " (running nodes follow within a second)"
NameArgument = Annotated[str, typer.Argument(help="The program's name.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Pass by the program's gates; it is on record.")]
EvaluationOption = Annotated[
    str | None, typer.Option(help="An evaluation of the version, for the gates to look at.")
]


def add_to(app: typer.Typer, application: Application) -> None:
    @app.command()
    def deploy(
        program: NameArgument,
        version: Annotated[
            int | None,
            typer.Argument(help="A version [that of the evaluation, else the newest that can run]."),
        ] = None,
        force: ForceOption = False,
        evaluation: EvaluationOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Let a version of a program answer, if its gates let it."""
        done = deploy_here(application, config, project, program, version, evaluation, force=force)
        if as_json:
            measured = None if done.measured is None else asdict(done.measured)
            print_json({"program": program, "version": done.version.number, "measured": measured})
        else:
            say_deployed(done)

    @app.command()
    def rollback(
        program: NameArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Let the version answer that did before the present one."""
        back = roll_back_here(application, config, project, program)
        if as_json:
            print_json({"program": program, "version": back.number})
        else:
            typer.echo(f"{program} answers with version {back.number}{SOON}")


def deploy_here(
    application: Application,
    config: Path | None,
    project: str,
    name: str,
    version: int | None,
    evaluation: str | None,
    *,
    force: bool,
) -> Deployed:
    """On the database of the configuration. Raises as `shared.gates.deployed`."""

    async def use(services: Services) -> Deployed:
        details = {"version": version, "force": force, "evaluation": evaluation}
        author = Author(check_project(project), CLI)
        async with services.audit.operation(author, "program.deploy", name, **details) as told:
            program = _as_declared(application, services, await services.programs.get(project, name))
            done = await deployed(services, program, version, evaluation, force=force)
            told |= {"version": done.version.number, "before": done.before}
            return done

    return with_services(application, config, use)


def roll_back_here(application: Application, config: Path | None, project: str, name: str) -> Version:
    """The version that answers now. Raises as `ProgramService.rollback`."""

    async def use(services: Services) -> Version:
        author = Author(check_project(project), CLI)
        async with services.audit.operation(author, "program.rollback", name) as told:
            program = await services.programs.get(project, name)
            told["before"] = await services.programs.number_deployed(program)
            _, back = await services.programs.rollback(program)
            told["version"] = back.number
            return back

    return with_services(application, config, use)


def _as_declared(application: Application, services: Services, program: Program) -> Program:
    """With the gates as the file has them now, which may be after the last start."""
    if program.source != "file" or program.project != DEFAULT_PROJECT:
        return program
    declared = application.definition(services.settings, program.name)
    if declared is None:
        return program
    return replace(program, settings=replace(program.settings, gates=declared[1].gates))


def say_deployed(done: Deployed) -> None:
    typer.echo(f"{done.program.name} answers with version {done.version.number}{SOON}")
    if done.measured is not None:
        score = score_text(done.measured.score)
        seen = "no score on held-out examples" if score is None else f"score {score}"
        typer.echo(f"{seen}, by {done.measured.by}")
