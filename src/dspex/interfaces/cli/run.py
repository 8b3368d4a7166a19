"""`dspex run`: one prediction, without a server."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dspex.executions.predictions import Adhoc
from dspex.executions.service import PredictionRequest
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.shared.presenters import prediction
from dspex.kit.errors import Invalid
from dspex.kit.ids import new_id
from dspex.signatures.document import parse_signature
from dspex.signatures.types import STR

PROJECT = "default"


def add_to(app: typer.Typer, application: Application) -> None:
    @app.command()
    def run(
        signature: Annotated[str, typer.Argument(help='A signature, "question, k: int -> answer".')],
        inputs: Annotated[list[str] | None, typer.Argument(help="Inputs as name=value.")] = None,
        module: Annotated[str, typer.Option(help="predict or chain_of_thought.")] = "predict",
        model: Annotated[str | None, typer.Option(help="An alias of the model registry.")] = None,
        config: Annotated[Path | None, typer.Option("--config", "-c", help="The configuration file.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")] = False,
    ) -> None:
        """Run a signature once and print its outputs."""
        settings, _ = application.load_settings(config, {})
        given = _inputs(signature, inputs or [])

        async def once() -> dict[str, Any]:
            async with application.open_services(settings) as services:
                request = PredictionRequest(PROJECT, new_id(), given, len(json.dumps(given)))
                return prediction(await services.predictions.adhoc(Adhoc(signature, module, model), request))  # type: ignore[arg-type]

        typer.echo(json.dumps(asyncio.run(once()), indent=2, ensure_ascii=False))


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
