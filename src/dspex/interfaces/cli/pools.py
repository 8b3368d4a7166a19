"""`dspex pools`: the worker processes of running nodes."""

from typing import Annotated
from urllib.parse import quote

import typer

from dspex.interfaces.cli.listing import Commands
from dspex.interfaces.cli.output import ConfigOption, JsonOption, print_json, print_table
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.remote import UrlOption, remote
from dspex.kit.wording import counted

COLUMNS = ("pool", "node", "pid", "state", "in_flight", "served", "age_s", "memory_mb", "reason")


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(cls=Commands, help="Look at the worker processes of running nodes, and replace them.")
    app.add_typer(group, name="pools", no_args_is_help=True)

    @group.command("list")
    def list_pools(url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Every worker of every pool that is up, in all processes on the database."""
        pools = remote(application, config, url).request("GET", "/v1/pools")["data"]
        if as_json:
            print_json(pools)
            return
        rows = [
            [
                {**one, "pool": pool["name"], "memory_mb": one["memory_bytes"] // 2**20 or None}[name]
                for name in COLUMNS
            ]
            for pool in pools
            for one in pool["workers"]
        ]
        print_table(COLUMNS, rows, "No worker runs: nothing has needed a pool yet.")

    @group.command()
    def recycle(
        name: Annotated[str, typer.Argument(help="A pool of the configuration.")],
        url: UrlOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Put new workers in the place of all that are there, without dropping a request."""
        done = remote(application, config, url).request(
            "POST", f"/v1/pools/{quote(name, safe='')}/recycle", {}
        )
        if as_json:
            print_json(done)
        else:
            typer.echo(f"replacing {counted(done['workers'], 'worker')} of {name}")
            for node in done["silent"]:
                typer.echo(f"{node} has not said so yet; look at its log.", err=True)
