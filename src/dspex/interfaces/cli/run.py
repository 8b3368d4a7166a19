"""`dspex run`: one prediction, without a server."""

import json
import os
from typing import Annotated, Any, Literal, cast

import typer
from msgspec.structs import replace

from dspex.access.records import DEFAULT_PROJECT, LOCAL_OPERATOR
from dspex.access.rules import check_project
from dspex.executions.events import Event, FieldDelta, StatusChanged
from dspex.executions.predictions import Adhoc
from dspex.executions.requests import PredictionRequest
from dspex.interfaces.cli.output import ConfigOption, JsonOption, ProjectOption, print_json
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.session import with_services
from dspex.interfaces.shared.presenters import prediction
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid
from dspex.kit.ids import new_id
from dspex.signatures.document import parse_signature
from dspex.signatures.types import STR

MODULES = ("predict", "chain_of_thought")


def add_to(app: typer.Typer, application: Application) -> None:
    @app.command()
    def run(
        signature: Annotated[str, typer.Argument(help='A signature, "question, k: int -> answer".')],
        inputs: Annotated[list[str] | None, typer.Argument(help="Inputs as name=value.")] = None,
        module: Annotated[str, typer.Option(help=" or ".join(MODULES))] = "predict",
        model: Annotated[str | None, typer.Option(help="An alias of the model registry.")] = None,
        stream: Annotated[bool, typer.Option(help="Print the outputs while the model writes them.")] = False,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Run a signature once and print its outputs."""
        if stream and as_json:
            raise Invalid("--stream prints text, --json a document; give one of them.", code="bad_argument")
        if module not in MODULES:
            raise Invalid(f"--module is {' or '.join(MODULES)}, not {module!r}.", code="bad_argument")
        given = _inputs(signature, inputs or [])
        operator = replace(LOCAL_OPERATOR, project=check_project(project))
        wanted = Adhoc(signature, cast(Literal["predict", "chain_of_thought"], module), model)

        async def use(services: Services) -> dict[str, Any]:
            listener = _Printer() if stream else None
            size = len(json.dumps(given))
            request = PredictionRequest(operator, new_id(), given, size, listener=listener)
            return prediction(await services.predictions.adhoc(wanted, request))

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


def _inputs(signature: str, pairs: list[str]) -> dict[str, Any]:
    """Text for str fields; JSON for the others, or text where it is no JSON."""
    types = {field.name: field.type for field in parse_signature(signature).inputs}
    given: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise Invalid(f"{pair!r} is no input; write name=value.", code="bad_argument")
        given[name] = text if types.get(name) == STR else _json_or_text(text)
    return given


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
