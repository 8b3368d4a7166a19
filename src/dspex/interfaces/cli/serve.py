"""`dspex serve`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dspex.interfaces.cli.ports import Application


def add_to(app: typer.Typer, application: Application) -> None:
    @app.command()
    def serve(
        config: Annotated[Path | None, typer.Option("--config", "-c", help="The configuration file.")] = None,
        host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
        port: Annotated[int | None, typer.Option(help="The port to listen on.")] = None,
        workers: Annotated[int | None, typer.Option(help="How many processes answer.")] = None,
        data_dir: Annotated[Path | None, typer.Option(help="Where SQLite and other files are kept.")] = None,
    ) -> None:
        """Serve the programs of dspex.yaml over HTTP."""
        server = {"host": host, "port": port, "workers": workers}
        given = {name: value for name, value in server.items() if value is not None}
        overrides: dict[str, Any] = {}
        if given:
            overrides["server"] = given
        if data_dir is not None:
            overrides["data_dir"] = data_dir
        application.serve(config, overrides)
