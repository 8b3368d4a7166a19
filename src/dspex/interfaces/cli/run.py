"""`dspex run`: one prediction of a signature or a program, without a server."""

import json
import os
from typing import Annotated, Any, Literal, cast

import typer
from msgspec.structs import replace

from dspex.access.records import DEFAULT_PROJECT, LOCAL_OPERATOR
from dspex.access.rules import check_project
from dspex.executions.catalog import Runnable
from dspex.executions.events import Event, FieldDelta, StatusChanged
from dspex.executions.predictions import Adhoc
from dspex.executions.requests import PredictionRequest
from dspex.interfaces.cli.output import ConfigOption, JsonOption, ProjectOption, print_json
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.program_here import program_here
from dspex.interfaces.cli.session import with_services
from dspex.interfaces.shared.presenters import prediction
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid, Missing
from dspex.kit.ids import new_id
from dspex.signatures.document import parse_signature
from dspex.signatures.records import Signature
from dspex.signatures.types import STR

MODULES = ("predict", "chain_of_thought")
# No name of a program has it.
ARROW = "->"


def add_to(app: typer.Typer, application: Application) -> None:
    @app.command()
    def run(
        what: Annotated[
            str, typer.Argument(help='A signature, "question, k: int -> answer", or the name of a program.')
        ],
        inputs: Annotated[list[str] | None, typer.Argument(help="Inputs as name=value.")] = None,
        module: Annotated[
            str | None, typer.Option(help=f"Of a signature: {' or '.join(MODULES)} [predict].")
        ] = None,
        model: Annotated[
            str | None, typer.Option(help="Of a signature: an alias of the model registry.")
        ] = None,
        stream: Annotated[bool, typer.Option(help="Print the outputs while the model writes them.")] = False,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Run a signature or a program once and print its outputs."""
        if stream and as_json:
            raise Invalid("--stream prints text, --json a document; give one of them.", code="bad_argument")
        if module not in (None, *MODULES):
            raise Invalid(f"--module is {' or '.join(MODULES)}, not {module!r}.", code="bad_argument")
        signature = parse_signature(what) if ARROW in what else None
        if signature is None and (module or model):
            raise Invalid(
                f"--module and --model go with a signature, such as 'question {ARROW} answer'; a program has its own.",
                code="bad_argument",
            )
        pairs = _pairs(inputs or [])
        operator = replace(LOCAL_OPERATOR, project=check_project(project))

        def request(contract: Signature) -> PredictionRequest:
            given = _inputs(contract, pairs)
            listener = _Printer() if stream else None
            return PredictionRequest(operator, new_id(), given, len(json.dumps(given)), listener=listener)

        async def use(services: Services) -> dict[str, Any]:
            if signature is not None:
                wanted = Adhoc(what, cast(Literal["predict", "chain_of_thought"], module or "predict"), model)
                return prediction(await services.predictions.adhoc(wanted, request(signature)))
            runnable = await _program(application, services, operator.project, what)
            return prediction(await services.predictions.run(runnable, request(runnable.signature)))

        answer = with_services(application, config, use)
        if as_json:
            print_json(answer)
        elif "error" not in answer:
            if stream:
                typer.echo()
            else:
                print_json(answer["outputs"])
            if answer.get("simulated"):
                typer.secho("(this answer is simulated)", err=True, dim=True)
        if "error" in answer:
            typer.echo(f"dspex: {answer['error']['message']}", err=True)
            raise typer.Exit(1)


class _Printer:
    """A listener that writes fields as a reader of a terminal wants them: a line with the name, the text below."""

    def __init__(self) -> None:
        self._field: str | None = None

    def tell(self, event: Event) -> None:
        if isinstance(event, FieldDelta):
            if event.name != self._field:
                typer.secho(f"{'' if self._field is None else os.linesep * 2}{event.name}:", bold=True)
                self._field = event.name
            typer.echo(event.delta, nl=False)
        elif isinstance(event, StatusChanged) and event.restarted:
            typer.secho(f"{os.linesep}({event.message} What is above is void.)", dim=True)
            self._field = None


async def _program(application: Application, services: Services, project: str, name: str) -> Runnable:
    try:
        return await program_here(application, services, project, name)
    except Missing as error:
        if error.code != "program_missing":
            raise
        raise Missing(
            f"There is no program {name!r}, and a signature is written with '{ARROW}', "
            f"as in 'question {ARROW} answer'.",
            code="program_missing",
        ) from None


def _pairs(inputs: list[str]) -> list[tuple[str, str]]:
    pairs = []
    for one in inputs:
        name, equals, text = one.partition("=")
        if not equals:
            raise Invalid(f"{one!r} is no input; write name=value.", code="bad_argument")
        pairs.append((name, text))
    return pairs


def _inputs(signature: Signature, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Text for str fields; JSON for the others, or text where it is no JSON."""
    types = {field.name: field.type for field in signature.inputs}
    return {name: text if types.get(name) == STR else _json_or_text(text) for name, text in pairs}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
