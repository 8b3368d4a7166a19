"""`dspex run`: one prediction, without a server."""

import json
from typing import Annotated, Any, Literal, cast

import typer

from dspex.executions.predictions import Adhoc
from dspex.executions.service import PredictionRequest
from dspex.interfaces.cli.output import ConfigOption, JsonOption, print_json
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.session import PROJECT, with_services
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
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Run a signature once and print its outputs."""
        if module not in MODULES:
            raise Invalid(f"--module is {' or '.join(MODULES)}, not {module!r}.", code="bad_argument")
        given = _inputs(signature, inputs or [])
        wanted = Adhoc(signature, cast(Literal["predict", "chain_of_thought"], module), model)

        async def use(services: Services) -> dict[str, Any]:
            request = PredictionRequest(PROJECT, new_id(), given, size=len(json.dumps(given)))
            return prediction(await services.predictions.adhoc(wanted, request))

        answer = with_services(application, config, use)
        if as_json:
            print_json(answer)
        elif "error" not in answer:
            print_json(answer["outputs"])
            if answer.get("simulated"):
                typer.secho("(this answer is simulated)", err=True, dim=True)
        if "error" in answer:
            typer.echo(f"dspex: {answer['error']['message']}", err=True)
            raise typer.Exit(1)


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
