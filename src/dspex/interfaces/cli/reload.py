"""`dspex reload`: the nodes on a database read their configuration again."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

import typer

from dspex.interfaces.cli.output import ConfigOption, JsonOption, print_json, print_table
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.session import with_services
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid
from dspex.kit.ids import new_id
from dspex.kit.signals import RELOAD, RELOADED

# A node that has not shown itself for longer is dead.
ALIVE = timedelta(seconds=20)


def add_to(app: typer.Typer, application: Application) -> None:
    @app.command()
    def reload(
        config: ConfigOption = None,
        wait_s: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the nodes.")] = 60.0,
        as_json: JsonOption = False,
        url: Annotated[str | None, typer.Option("--url", hidden=True)] = None,
    ) -> None:
        """Let running nodes read their configuration again; exit 1 unless all of them take it.

        The file is checked here first: nothing is sent when it has mistakes.
        """
        if url is not None:
            raise Invalid(
                "A node does not reload over HTTP: it reads the file on its own machine. Run `dspex reload` there, or "
                "wherever a configuration names its database; or send its process SIGHUP.",
                code="bad_argument",
            )

        async def use(services: Services) -> list[Mapping[str, str]]:
            return await _reload(services, wait_s)

        found = with_services(application, config, use)
        if as_json:
            print_json(found)
        else:
            rows = [(one["node"], one["outcome"], one["detail"]) for one in found]
            nobody = "No node runs on this database; the file is read when one starts."
            print_table(("node", "outcome", "refused because, or needs a restart"), rows, nobody)
        raise typer.Exit(0 if all(one["outcome"] == "reloaded" for one in found) else 1)


async def _reload(services: Services, wait_s: float) -> list[Mapping[str, str]]:
    """What each living node answers; one that says nothing in time is in it as `silent`."""
    request = new_id()
    answers: dict[str, Mapping[str, str]] = {}
    changed = asyncio.Event()

    def hear(payload: Mapping[str, str]) -> None:
        if payload["request"] == request:
            answers[payload["node"]] = payload
            changed.set()

    services.signals.on(RELOADED, hear)
    async with services.signals.listening():
        living = await services.nodes.alive(beat_after=services.clock.now() - ALIVE)
        await services.signals.send(RELOAD, {"request": request})
        try:
            async with asyncio.timeout(wait_s):
                while not answers.keys() >= set(living):
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            pass
    silent = {"outcome": "silent", "detail": f"said nothing within {wait_s:g} s; look at its log"}
    return [
        {name: answer[name] for name in ("node", "outcome", "detail")}
        for answer in ({**silent, "node": node} | dict(answers.get(node, {})) for node in living)
    ]
