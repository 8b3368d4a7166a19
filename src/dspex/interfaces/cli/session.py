"""Running one command on the services of a short-lived node."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import typer
from msgspec import Struct, field

from dspex.access.records import CLI, Author
from dspex.access.rules import check_project
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


def with_services(
    application: Application,
    config: Path | None,
    use: Callable[[Services], Awaitable[T]],
    audited: Operation | None = None,
) -> T:
    """What `use` returns. It works on the database of the configuration, also while a server runs on it."""
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

    return asyncio.run(once())
