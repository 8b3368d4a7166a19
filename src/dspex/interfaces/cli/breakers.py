"""`dspex breakers`: which models a running node leaves alone, and an operator's hand on it."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from dspex.interfaces.cli.listing import Commands
from dspex.interfaces.cli.output import ConfigOption, JsonOption, print_json, print_table
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.remote import Remote, UrlOption, remote

ModelArgument = Annotated[str, typer.Argument(help="A model's alias in models.registry.")]
COLUMNS = ("model", "state", "failures", "since", "retry_after", "last_error", "in_flight", "waiting")


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(cls=Commands, help="Look at the breakers of a running node, and set them.")
    app.add_typer(group, name="breakers", no_args_is_help=True)

    @group.command("list")
    def list_breakers(
        url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False
    ) -> None:
        """Each model's breaker, and its calls in flight and waiting."""
        _print(remote(application, config, url).listed("/v1/breakers"), as_json)

    @group.command("open")
    def open_breaker(
        model: ModelArgument, url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False
    ) -> None:
        """Let nobody call the model until it is closed or reset; fallbacks answer."""
        _print([_operate(remote(application, config, url), model, "open")], as_json)

    @group.command()
    def close(
        model: ModelArgument, url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False
    ) -> None:
        """Let calls pass at once; failures are counted from 0."""
        _print([_operate(remote(application, config, url), model, "close")], as_json)

    @group.command()
    def reset(
        model: ModelArgument, url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False
    ) -> None:
        """Close it and forget its last error."""
        _print([_operate(remote(application, config, url), model, "reset")], as_json)


def _operate(node: Remote, model: str, action: str) -> dict[str, Any]:
    return node.post(f"/v1/breakers/{quote(model, safe='')}/{action}", {})


def _print(breakers: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(breakers)
        return
    rows = []
    for one in breakers:
        # Without an admin's key the node does not say.
        lanes = one["lanes"].values() if "lanes" in one else None
        counts = {
            name: None if lanes is None else sum(lane[name] for lane in lanes)
            for name in ("in_flight", "waiting")
        }
        rows.append([{**one, **counts}[name] for name in COLUMNS])
    print_table(COLUMNS, rows, "No models.")
