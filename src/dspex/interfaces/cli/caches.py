"""`dspex cache`: what a running node keeps, and emptying it."""

from pathlib import Path
from typing import Annotated

import typer

from dspex.interfaces.cli.listing import Commands
from dspex.interfaces.cli.output import ConfigOption, JsonOption, print_json, print_table
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.remote import ActingOption, UrlOption, remote
from dspex.interfaces.cli.warming import warm
from dspex.kit.wording import counted, usd_text


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(cls=Commands, help="Look at the caches of a running node, and empty them.")
    app.add_typer(group, name="cache", no_args_is_help=True)

    @group.command()
    def stats(url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """What the caches hold, and how often they could answer."""
        found = remote(application, config, url).request("GET", "/v1/cache")
        if as_json:
            print_json(found)
            return
        columns = ("kind", "entries", "bytes", "hits", "misses", "stale", "hit_rate")
        print_table(columns, [[one[name] for name in columns] for one in found["data"]], "No caches.")
        typer.echo(f"redis: {found['redis']}")

    @group.command("warm-embeddings")
    def warm_embeddings(
        file: Annotated[Path, typer.Argument(help="JSON lines: an object with a text each.")],
        model: Annotated[str, typer.Option(help="An embedding model's alias.")],
        field: Annotated[str, typer.Option(help="The member that holds the text.")] = "text",
        dimensions: Annotated[int | None, typer.Option(min=1, help="Of the vectors [the model's].")] = None,
        url: UrlOption = None,
        config: ConfigOption = None,
        project: ActingOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Embed the texts of a file, so that nobody waits for them later. Those that are kept are not asked again."""
        node = remote(application, config, url, project)
        warmed = warm(node, file, field, model, dimensions)
        if as_json:
            print_json(warmed.to_json())
            return
        cost = "an unknown sum" if warmed.cost_usd is None else usd_text(warmed.cost_usd)
        typer.echo(
            f"{counted(warmed.texts, 'text')}: {warmed.hits} kept before, {warmed.misses} embedded now with "
            f"{counted(warmed.tokens, 'token')} for {cost}"
        )

    @group.command()
    def clear(
        url: UrlOption = None,
        config: ConfigOption = None,
        project: ActingOption = None,
        all_projects: Annotated[bool, typer.Option("--all-projects", help="Of every project.")] = False,
    ) -> None:
        """Forget every kept answer: on that node at once, on others within a second."""
        node = remote(application, config, url, project)
        cleared = node.request("POST", "/v1/cache/clear", {"all_projects": all_projects})
        typer.echo("cleared " + ("all projects" if cleared["project"] is None else cleared["project"]))
