"""`dspex deploy` and `dspex rollback`: which version of a program answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from dspex.access.records import CLI, DEFAULT_PROJECT, Author
from dspex.access.rules import check_project
from dspex.interfaces.cli.output import ConfigOption, JsonOption, ProjectOption, print_json, score_text
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.program_here import known_program
from dspex.interfaces.cli.remote import LONG_S, NodeOption, Remote, named_node, segment
from dspex.interfaces.cli.session import here_or_there
from dspex.interfaces.shared.gates import deployed
from dspex.interfaces.shared.services import Services
from dspex.kit.records import asdict
from dspex.programs.records import Program

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
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Let a version of a program answer, if its gates let it."""
        done = deployed_version(application, config, url, project, program, version, evaluation, force=force)
        if as_json:
            print_json(done)
        else:
            say_deployed(done)

    @app.command()
    def rollback(
        program: NameArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Let the version answer that did before the present one."""

        back = rolled_back(application, config, url, project, program)
        if as_json:
            print_json({"program": program, "version": back})
        else:
            typer.echo(f"{program} answers with version {back}{SOON}")


def deployed_version(
    application: Application,
    config: Path | None,
    url: str | None,
    project: str,
    name: str,
    version: int | None,
    evaluation: str | None,
    *,
    force: bool,
) -> dict[str, Any]:
    """`program`, the `version` that answers and how it was `measured`. Raises as `shared.gates.deployed`."""
    wanted = {"version": version, "evaluation": evaluation}

    async def here(services: Services) -> dict[str, Any]:
        details = {**wanted, "force": force}
        author = Author(check_project(project), CLI)
        async with services.audit.operation(author, "program.deploy", name, **details) as told:
            program = _as_declared(application, services, await known_program(services, project, name))
            done = await deployed(services, program, version, evaluation, force=force)
            told |= {"version": done.version.number, "before": done.before}
            measured = None if done.measured is None else asdict(done.measured)
            return {"program": program.name, "version": done.version.number, "measured": measured}

    def there(node: Remote) -> dict[str, Any]:
        given = {key: value for key, value in wanted.items() if value is not None}
        done = node.post(f"/v1/programs/{segment(name)}/deploy", {**given, "force": force}, within_s=LONG_S)
        return {"program": name, "version": done["deployed_version"], "measured": done["measured"]}

    return here_or_there(application, config, named_node(url, project), here, there)


def rolled_back(
    application: Application, config: Path | None, url: str | None, project: str, name: str
) -> int:
    """The version that answers again."""

    async def here(services: Services) -> int:
        author = Author(check_project(project), CLI)
        async with services.audit.operation(author, "program.rollback", name) as told:
            program = await known_program(services, project, name)
            told["before"] = await services.programs.number_deployed(program)
            _, back = await services.programs.rollback(program)
            told["version"] = back.number
            return back.number

    def there(node: Remote) -> int:
        return int(node.post(f"/v1/programs/{segment(name)}/rollback", {})["deployed_version"])

    return here_or_there(application, config, named_node(url, project), here, there)


def _as_declared(application: Application, services: Services, program: Program) -> Program:
    """With the gates as the file has them now, which may be after the last start."""
    if program.source != "file" or program.project != DEFAULT_PROJECT:
        return program
    declared = application.definition(services.settings, program.name)
    if declared is None:
        return program
    return replace(program, settings=replace(program.settings, gates=declared[1].gates))


def say_deployed(done: Mapping[str, Any]) -> None:
    typer.echo(f"{done['program']} answers with version {done['version']}{SOON}")
    measured = done["measured"]
    if measured is not None:
        score = score_text(measured["score"])
        seen = "no score on held-out examples" if score is None else f"score {score}"
        typer.echo(f"{seen}, by {measured['by']}")
