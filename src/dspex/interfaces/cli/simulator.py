"""`dspex simulator`: a language model for tests and load, speaking OpenAI's protocol."""

from pathlib import Path
from typing import Annotated

import typer

from dspex.interfaces.cli.ports import Application


def add_to(app: typer.Typer, application: Application) -> None:
    @app.command()
    def simulator(
        host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 9300,
        latency: Annotated[
            str, typer.Option(help="500ms, uniform:100ms-300ms, or lognormal:200ms,0.5")
        ] = "0ms",
        seed: Annotated[int, typer.Option(help="Another seed, other answers.")] = 0,
        script: Annotated[Path | None, typer.Option(help="A YAML or JSON file of scripted answers.")] = None,
        teach: Annotated[
            bool, typer.Option(help="Answer the shipped tasks as well as the prompt teaches.")
        ] = False,
    ) -> None:
        """Run the LM simulator as an OpenAI-compatible server."""
        application.run_simulator(host, port, latency=latency, seed=seed, script=script, teach=teach)
