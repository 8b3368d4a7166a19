"""`dspex work`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dspex.interfaces.cli.output import ConfigOption
from dspex.interfaces.cli.ports import Application


def add_to(app: typer.Typer, application: Application) -> None:
    @app.command()
    def work(
        config: ConfigOption = None,
        queues: Annotated[
            list[str] | None, typer.Option("--queues", help="A queue to serve; again for more [all].")
        ] = None,
        data_dir: Annotated[Path | None, typer.Option(help="Where SQLite and other files are kept.")] = None,
    ) -> None:
        """Run background executions, batches and other jobs; `dspex serve` starts one by itself."""
        overrides: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
        named = [name for given in queues or [] for name in given.split(",") if name]
        application.work(config, overrides, named)
