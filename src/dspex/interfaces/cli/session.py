"""Running one command on the services of a short-lived node."""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import typer
from msgspec import Struct, field

from dspex.access.records import CLI, Author
from dspex.access.rules import check_project
from dspex.configuration.settings import Settings
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.remote import Remote
from dspex.interfaces.shared.services import Services

T = TypeVar("T")


class Operation(Struct, frozen=True):
    """What the audit log tells of a command."""

    action: str
    target: str | None
    project: str
    details: Mapping[str, Any] = field(default_factory=dict)


def here_or_there(
    application: Application,
    config: Path | None,
    node: Remote | None,
    here: Callable[[Services], Awaitable[T]],
    there: Callable[[Remote], T],
    audited: Operation | None = None,
) -> T:
    """What `there` gets of the node; without one what `here` does on the database of the configuration.

    `audited` is for the latter: a node tells its own audit log. Raises as they do.
    """
    return with_services(application, config, here, audited) if node is None else there(node)


def read_here_or_there(
    application: Application,
    config: Path | None,
    node: Remote | None,
    here: Callable[[Services], Awaitable[T]],
    there: Callable[[Remote], T],
) -> T:
    """As `here_or_there`, for a `here` that only reads: no database is made for it."""
    return with_services(application, config, here, reads=True) if node is None else there(node)


def with_services(
    application: Application,
    config: Path | None,
    use: Callable[[Services], Awaitable[T]],
    audited: Operation | None = None,
    *,
    reads: bool = False,
) -> T:
    """What `use` returns. It works on the database of the configuration, also while a server runs on it.

    Where there is none yet one is made; a `use` that only `reads` gets an empty one to throw away, and that is said.
    """
    settings, _ = application.load_settings(config, {})
    if os.environ.get("DSPEX_URL"):
        typer.echo(
            "DSPEX_URL is set, but this command works on the database of the configuration here, not on that node.",
            err=True,
        )

    async def once() -> T:
        async with application.open_services(settings) as services:
            if audited is None:
                return await use(services)
            author = Author(check_project(audited.project), CLI)
            async with services.audit.operation(author, audited.action, audited.target, **audited.details):
                return await use(services)

    if not reads:
        return asyncio.run(once())
    with _without_making(application, settings) as settings:
        return asyncio.run(once())


@contextmanager
def _without_making(application: Application, settings: Settings) -> Iterator[Settings]:
    """The settings with a database that is there: an empty one of its own where theirs is not made yet."""
    missing = application.missing_database(settings)
    if missing is None:
        yield settings
        return
    typer.echo(
        f"There is no database at {missing} yet. A node keeps its data where it was started: run this in that "
        "directory, or name its data directory with DSPEX_DATA_DIR.",
        err=True,
    )
    with tempfile.TemporaryDirectory(prefix="dspex-") as directory:
        place = {"data_dir": Path(directory), "database_url": None}
        yield settings.model_copy(update=place)
