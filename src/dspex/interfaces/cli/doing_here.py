"""Jobs that a command asks for and does itself, where no worker of the database does."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import typer

from dspex.interfaces.cli.output import print_json
from dspex.interfaces.cli.ports import Application, WorkingHere
from dspex.interfaces.cli.waiting import STILL, Left, exit_unless_done, interrupted
from dspex.kit.errors import Unavailable

LOOK_S = 0.5
STOPPED = 130


class Known(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Known)
# Shows how far it is; its state.
Look = Callable[[], Awaitable[str]]


def done_here(
    application: Application,
    config: Path | None,
    group: str,
    project: str,
    job_id: str | None,
    begin: Callable[[WorkingHere], Awaitable[T]],
    finish: Callable[[WorkingHere, T], Awaitable[None]] | None,
    shown: Callable[[WorkingHere, str], Awaitable[dict[str, Any]]],
) -> dict[str, Any]:
    """What is `shown` of the job that it begins, or goes on with (`job_id`), and waits for unless `finish` is None.

    Raises Left when it is interrupted, which says by `group` what becomes of the job.
    """
    settings, _ = application.load_settings(config, {})
    known, elsewhere = job_id, None

    async def work() -> dict[str, Any]:
        nonlocal known, elsewhere
        async with application.working_here(settings) as here:
            made = await begin(here)
            known = made.id
            if finish is not None:
                try:
                    await finish(here, made)
                except asyncio.CancelledError:
                    elsewhere = await here.elsewhere(project, made.id)
                    raise
            return await shown(here, made.id)

    try:
        return asyncio.run(work())
    except KeyboardInterrupt:
        if known is None:
            raise Left(
                "stopped before anything was begun; there is nothing to resume or to cancel."
            ) from None
        raise interrupted(group, known, elsewhere) from None


async def finished(here: WorkingHere, project: str, job_id: str, look: Look) -> None:
    """Returns when it is over, or paused by somebody. Interrupted, it gives the job back before it passes that on."""
    stop = asyncio.Event()
    doing = asyncio.create_task(here.finish(project, job_id, stop))
    try:
        while not doing.done():
            # The work goes on while the database is away, and so does who watches it.
            with suppress(Unavailable):
                if await look() in STILL:
                    break
            await asyncio.wait([doing], timeout=LOOK_S)
    finally:
        stop.set()
        await asyncio.wait([doing])
    doing.result()


def report(
    group: str,
    wait: Callable[[], dict[str, Any]],
    show: Callable[[Mapping[str, Any]], None],
    *,
    as_json: bool,
) -> None:
    """Shows what was waited for; the command exits as that ended."""
    try:
        done = wait()
    except Left as left:
        typer.echo(f"dspex: {left}", err=True)
        raise typer.Exit(STOPPED) from None
    if as_json:
        print_json(done)
    else:
        show(done)
    exit_unless_done(group, done)
