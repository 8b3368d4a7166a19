"""`dspex reload`: the nodes on a database read their configuration again."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated

import typer
from msgspec import Struct

from dspex.access.records import DEFAULT_PROJECT
from dspex.interfaces.cli.output import ConfigOption, JsonOption, print_json, print_table, print_text
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.session import with_services
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid
from dspex.kit.ids import new_id
from dspex.kit.records import asdict
from dspex.kit.signals import RELOAD, RELOADED
from dspex.programs.declared import Declared, declared_programs

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
        """Let running nodes read their configuration again; exit 1 unless all take it and its programs answer.

        The file is checked here first: nothing is sent when it has mistakes. A version of the file that its gates keep
        back, or that can't run, is a failure; one that somebody deployed another in place of is none.
        """
        if url is not None:
            raise Invalid(
                "A node does not reload over HTTP: it reads the file on its own machine. Run `dspex reload` there, or "
                "wherever a configuration names its database; or send its process SIGHUP.",
                code="bad_argument",
            )

        async def use(services: Services) -> Found:
            before = {one.program: one.deployed for one in await _declared(services)}
            nodes = await _reload(services, wait_s)
            # Where nobody took it, the programs are still those of before.
            taken = any(one["outcome"] == "reloaded" for one in nodes)
            return Found(nodes, await _declared(services) if taken else [], before)

        found = with_services(application, config, use)
        if as_json:
            print_json({"nodes": found.nodes, "programs": [asdict(one) for one in found.programs]})
        else:
            print_found(found)
        taken_by_all = all(one["outcome"] == "reloaded" for one in found.nodes)
        raise typer.Exit(0 if taken_by_all and all(one.met for one in found.programs) else 1)


class Found(Struct, frozen=True):
    """What nodes answered, what became of the programs of files, and the versions that had answered `before`."""

    nodes: Sequence[Mapping[str, str]]
    programs: Sequence[Declared]
    before: Mapping[str, int | None]


async def _declared(services: Services) -> Sequence[Declared]:
    return await declared_programs(services.programs, DEFAULT_PROJECT)


def print_found(found: Found) -> None:
    rows = [(one["node"], one["outcome"], one["detail"]) for one in found.nodes]
    nobody = "No node runs on this database; the file is read when one starts."
    print_table(("node", "outcome", "refused because, or needs a restart"), rows, nobody)
    if not found.programs:
        return
    typer.echo()
    programs = [
        (one.program, one.version, found.before.get(one.program), one.deployed, one.outcome.replace("_", " "))
        for one in found.programs
    ]
    print_table(("program", "in the file", "answered", "answers", "outcome"), programs, "")
    for one in found.programs:
        lost = one.displaced if found.before.get(one.program) != one.deployed else None
        if one.reason is not None:
            print_text(f"{one.program}: {one.reason}")
        elif lost is not None:
            print_text(
                f"{one.program}: what the file declares has changed, so version {one.version} took the place of "
                f"version {lost.version}, which the optimization {lost.optimization} made. `dspex rollback "
                f"{one.program}` lets version {lost.version} answer again."
            )


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
